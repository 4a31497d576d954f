"""The veth of one endpoint, both ends configured.

    endpoint's namespace                     node
    eth0  10.1.0.5/32, fd00:10:1::5/128  ──  mesh5  (no address, host_mac)
    gateway      scope link, permanent neighbour -> host_mac
    default      via gateway, mtu = route_mtu
                                             10.1.0.5 dev mesh5 proto 109,
                                             permanent neighbour -> the inner MAC

Nobody has to ask for a neighbour, so neither ARP nor neighbour discovery is needed; there
is no link-local address, so nothing is solicited and no duplicate is looked for.
Three steps, each in a thread of the namespace it works in.
"""

from __future__ import annotations

import errno
import os

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from meshnet.errors import AlreadyExists, NetlinkRefused, NotFound, UsageError
from meshnet.model.addressing import host_prefix, usable_mtu
from meshnet.model.kernel import Route, VethSpec
from meshnet.netlink import namespace
from meshnet.netlink.link import (
    Link,
    delete_link,
    find_link,
    get_link,
    set_addresses,
    set_link,
)
from meshnet.netlink.route import (
    RTPROTO_BOOT,
    default_prefix,
    replace_neighbour,
    replace_route,
)

ADDR_GEN_MODE_NONE = 1
"""IN6_ADDR_GEN_MODE_NONE of <linux/if_link.h>: no link-local address by itself."""


def ensure_pair(spec: VethSpec) -> Link:
    """On the node: the host end, its other end in `spec.netns`.

    Raises:
        NotFound, UsageError: `spec.netns` is no network namespace.
        AlreadyExists: something else is called `spec.ifname` in there.
    """
    try:
        target = os.open(spec.netns, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"network namespace {spec.netns} does not exist") from error
    try:
        with namespace.requests() as socket:
            host = find_link(socket, spec.host_ifname)
            if host is not None and not _reaches(socket, host, target):
                delete_link(socket, spec.host_ifname)
                host = None
            return host or _add(socket, spec, target)
    finally:
        os.close(target)


def _reaches(socket: IPRoute, host: Link, target: int) -> bool:
    with namespace.refusing("read namespace id"):
        known = socket.get_netnsid(fd=target)["nsid"]
    return host.kind == "veth" and host.peer_netns == known


def _add(socket: IPRoute, spec: VethSpec, target: int) -> Link:
    try:
        socket.link(
            "add",
            ifname=spec.host_ifname,
            kind="veth",
            address=spec.host_mac,
            mtu=spec.mtu,
            peer={"ifname": spec.ifname, "mtu": spec.mtu, "net_ns_fd": target},
        )
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            raise AlreadyExists(
                f"interface {spec.ifname!r} exists in {spec.netns}: choose another --ifname"
            ) from error
        if error.code == errno.EINVAL:
            raise UsageError(
                f"{spec.netns} is not a network namespace: give /run/netns/NAME"
            ) from error
        request = f"create veth {spec.host_ifname}"
        raise NetlinkRefused(request, error.code, os.strerror(error.code)) from error
    return get_link(socket, spec.host_ifname)


def configure_inner(spec: VethSpec, ifindex: int) -> str:
    """In the endpoint's namespace: addresses and routes. Returns the inner MAC."""
    with namespace.requests() as socket:
        link = get_link(socket, ifindex)
        if link.ifname != spec.ifname:
            set_link(socket, ifindex, state="down")
            set_link(socket, ifindex, ifname=spec.ifname)
        _silence(spec.ifname)
        set_link(socket, get_link(socket, "lo").ifindex, state="up")
        set_link(socket, ifindex, mtu=spec.mtu, state="up")
        set_addresses(socket, ifindex, spec.addresses)
        for gateway in spec.gateways:
            replace_neighbour(socket, ifindex, gateway, spec.host_mac)
            to_gateway = Route(destination=host_prefix(gateway), ifindex=ifindex)
            replace_route(socket, to_gateway, proto=RTPROTO_BOOT)
            default = Route(
                destination=default_prefix(gateway.version),
                ifindex=ifindex,
                via=gateway,
                mtu=usable_mtu(spec.route_mtu, gateway.version),
            )
            replace_route(socket, default, proto=RTPROTO_BOOT)
    return link.mac


def configure_host(spec: VethSpec, ifindex: int, inner_mac: str) -> None:
    """On the node: up, with a route and a neighbour for each address of the endpoint."""
    with namespace.requests() as socket:
        _silence(spec.host_ifname)
        namespace.write_sysctl(f"ipv4/conf/{spec.host_ifname}/rp_filter", 0)
        set_link(socket, ifindex, address=spec.host_mac, mtu=spec.mtu, state="up")
        for address in spec.addresses:
            replace_neighbour(socket, ifindex, address, inner_mac)
            replace_route(socket, Route(destination=host_prefix(address), ifindex=ifindex))


def _silence(ifname: str) -> None:
    """IPv6 on (container runtimes turn it off), and nothing said or heard by itself."""
    settings = {
        "disable_ipv6": 0,
        "addr_gen_mode": ADDR_GEN_MODE_NONE,
        "accept_ra": 0,
        "router_solicitations": 0,
        "accept_dad": 0,
    }
    for name, value in settings.items():
        namespace.write_sysctl(f"ipv6/conf/{ifname}/{name}", value)
