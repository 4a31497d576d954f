"""Routes of the main table, and permanent neighbours. Blocking, over one netlink socket."""

from __future__ import annotations

import errno
import socket as sockets
from ipaddress import ip_address, ip_network
from typing import Any

import attrs
from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from meshnet.errors import NetlinkRefused
from meshnet.model.addressing import Address, Prefix
from meshnet.model.kernel import Hop, Route
from meshnet.netlink.api import RTPROTO_MESHNET
from meshnet.netlink.namespace import refusing

MAIN_TABLE = 254
RTPROTO_BOOT = 3
SCOPE_LINK = 253
SCOPE_NOWHERE = 255
"""In a deletion: any scope."""
NUD_PERMANENT = 0x80
NTF_USE = 0x01
"""In a neighbour's flags: as if a packet were sent to it."""
RTN_UNICAST = 1
NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ENETDOWN)
"""What a missing, unreachable, prohibit or blackhole route answers."""

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
    source, via = message.get_attr("RTA_PREFSRC"), _gateway(message)
    metrics = message.get_attr("RTA_METRICS")
    return Route(
        destination=(
            ip_network(f"{destination}/{message['dst_len']}")
            if destination
            else default_prefix(version)
        ),
        ifindex=message.get_attr("RTA_OIF"),
        source=ip_address(source) if source else None,
        via=via,
        mtu=metrics.get_attr("RTAX_MTU") if metrics else None,
    )


def _gateway(message: Any) -> Address | None:
    """RTA_VIA names one of the other family (RFC 5549)."""
    other = message.get_attr("RTA_VIA")
    text = other["addr"] if other else message.get_attr("RTA_GATEWAY")
    return ip_address(text) if text else None


def find_hop(socket: IPRoute, address: Address, *, mac: bool = False) -> Hop | None:
    """As the kernel would send; None: it has no way, or the address is its own.

    Args:
        mac: look up the hop's MAC too, or have the kernel ask for it.
    """
    family = _FAMILY[address.version]
    try:
        (message,) = socket.route("get", dst=str(address), family=family)
    except NetlinkError as error:
        if error.code in NO_WAY:
            return None
        raise NetlinkRefused(f"find the way to {address}", error.code, str(error)) from error
    if message["type"] != RTN_UNICAST:
        return None
    gateway, ifindex = _gateway(message), message.get_attr("RTA_OIF")
    hop = Hop(address=gateway or address, ifindex=ifindex, on_link=gateway is None)
    return attrs.evolve(hop, mac=_mac(socket, hop)) if mac else hop


def _mac(socket: IPRoute, hop: Hop) -> str | None:
    words = {"dst": str(hop.address), "ifindex": hop.ifindex}
    try:
        (found,) = socket.neigh("get", family=_FAMILY[hop.address.version], **words)
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise NetlinkRefused(f"find neighbour {hop.address}", error.code, str(error)) from error
        found = None
    known: str | None = found.get_attr("NDA_LLADDR") if found else None
    if known is None:
        with refusing(f"ask for neighbour {hop.address}", errno.ENETDOWN):
            socket.neigh("replace", flags=NTF_USE, state=0, **words)
    return known


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
    if route.via is not None and route.via.version != route.destination.version:
        words["via"] = {"family": _FAMILY[route.via.version], "addr": str(route.via)}
    elif route.via is not None:
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
