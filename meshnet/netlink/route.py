"""Routes of the main table, and permanent neighbours. Blocking, over one netlink socket."""

from __future__ import annotations

import errno
import socket as sockets
from ipaddress import ip_address, ip_network
from typing import Any

from pyroute2.iproute.linux import IPRoute

from meshnet.model.addressing import Address, Prefix
from meshnet.model.kernel import Route
from meshnet.netlink.api import RTPROTO_MESHNET
from meshnet.netlink.namespace import refusing

MAIN_TABLE = 254
RTPROTO_BOOT = 3
SCOPE_LINK = 253
SCOPE_NOWHERE = 255
"""In a deletion: any scope."""
NUD_PERMANENT = 0x80

_FAMILY = {4: sockets.AF_INET, 6: sockets.AF_INET6}
_EVERYTHING = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def default_prefix(version: int) -> Prefix:
    return _EVERYTHING[version]


def list_routes(socket: IPRoute, *, proto: int = RTPROTO_MESHNET) -> list[Route]:
    return [
        _read(message, version)
        for version, family in _FAMILY.items()
        for message in _dump(socket, family)
        if message["proto"] == proto
    ]


def default_route_links(socket: IPRoute) -> set[int]:
    """The ifindexes that default routes leave through."""
    return {
        oif
        for family in _FAMILY.values()
        for message in _dump(socket, family)
        if message["dst_len"] == 0 and (oif := message.get_attr("RTA_OIF")) is not None
    }


def _dump(socket: IPRoute, family: int) -> list[Any]:
    with refusing("list routes"):
        return list(socket.get_routes(family=family, table=MAIN_TABLE))


def _read(message: Any, version: int) -> Route:
    destination = message.get_attr("RTA_DST")
    source, via = message.get_attr("RTA_PREFSRC"), message.get_attr("RTA_GATEWAY")
    metrics = message.get_attr("RTA_METRICS")
    return Route(
        destination=(
            ip_network(f"{destination}/{message['dst_len']}")
            if destination
            else default_prefix(version)
        ),
        ifindex=message.get_attr("RTA_OIF"),
        source=ip_address(source) if source else None,
        via=ip_address(via) if via else None,
        mtu=metrics.get_attr("RTAX_MTU") if metrics else None,
    )


def replace_route(socket: IPRoute, route: Route, *, proto: int = RTPROTO_MESHNET) -> None:
    """Add it, or change the one to the same destination."""
    with refusing(f"replace route to {route.destination}"):
        socket.route("replace", **_words(route, proto))


def delete_route(socket: IPRoute, route: Route) -> None:
    """An absent route is not an error."""
    words = {"dst": str(route.destination), "oif": route.ifindex, "proto": RTPROTO_MESHNET}
    family = _FAMILY[route.destination.version]
    with refusing(f"delete route to {route.destination}", errno.ESRCH, errno.ENODEV):
        socket.route("del", family=family, table=MAIN_TABLE, scope=SCOPE_NOWHERE, **words)


def _words(route: Route, proto: int) -> dict[str, Any]:
    words: dict[str, Any] = {
        "family": _FAMILY[route.destination.version],
        "table": MAIN_TABLE,
        "proto": proto,
        "dst": str(route.destination),
        "oif": route.ifindex,
    }
    if route.via is not None:
        words["gateway"] = str(route.via)
    elif route.destination.version == 4:
        words["scope"] = SCOPE_LINK
    if route.source is not None:
        words["prefsrc"] = str(route.source)
    if route.mtu is not None:
        words["metrics"] = {"mtu": route.mtu}
    return words


def replace_neighbour(socket: IPRoute, ifindex: int, address: Address, mac: str) -> None:
    """A permanent one: nobody asks, and it never goes stale."""
    with refusing(f"replace neighbour {address} on link {ifindex}"):
        socket.neigh("replace", ifindex=ifindex, dst=str(address), lladdr=mac, state=NUD_PERMANENT)
