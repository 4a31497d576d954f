"""Cables and switches between the network namespaces of a lab. Synchronous.

Namespaces are paths, such as /proc/4711/ns/net. A cable is made with each end at once in
the namespace where it belongs, so no crash can leave half of one in a third namespace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface, IPv6Interface
from typing import TypeVar

import attrs
from pyroute2.iproute.linux import IPRoute

from meshnet.model.addressing import Address
from meshnet.netlink import link, namespace

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class CableEnd:
    netns: str
    ifname: str
    mac: str | None = None
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    bridge: str | None = None
    """The bridge in that namespace which it is plugged into."""


@attrs.frozen(kw_only=True)
class Port:
    """An interface of a lab host, as found."""

    ifname: str
    mac: str
    addresses: tuple[Address, ...]


def _in(netns: str, request: Callable[[IPRoute], T]) -> T:
    """Run one request in a thread of its own inside `netns`."""

    def inside() -> T:
        namespace.enter(netns)
        with namespace.requests() as socket:
            return request(socket)

    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(inside).result()


def prepare(netns: str) -> None:
    """`lo` up, and IPv6 addresses usable at once instead of after a second's search for
    duplicates."""

    def request(socket: IPRoute) -> None:
        for scope in ("all", "default"):
            namespace.write_sysctl(f"ipv6/conf/{scope}/accept_dad", 0)
        link.set_link(socket, link.get_link(socket, "lo").ifindex, state="up")

    _in(netns, request)


def create_bridge(netns: str, ifname: str) -> None:
    """A plain switch: no spanning tree, nothing learnt from multicast reports."""

    def request(socket: IPRoute) -> None:
        with namespace.refusing(f"create bridge {ifname}"):
            socket.link(
                "add", ifname=ifname, kind="bridge", br_forward_delay=0, br_mcast_snooping=0
            )
        link.set_link(socket, link.get_link(socket, ifname).ifindex, state="up")

    _in(netns, request)


def connect(one: CableEnd, other: CableEnd, *, mtu: int) -> None:
    """Lay a cable: a veth with its ends in two namespaces, both up.

    Raises:
        NetlinkRefused: an interface of that name is there, or a namespace has gone.
    """
    target = os.open(other.netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _in(one.netns, lambda socket: _add(socket, one, other, target, mtu))
    finally:
        os.close(target)
    for end in (one, other):
        _in(end.netns, lambda socket, end=end: _plug(socket, end))  # type: ignore[misc]


def _add(socket: IPRoute, one: CableEnd, other: CableEnd, target: int, mtu: int) -> None:
    peer = {"ifname": other.ifname, "mtu": mtu, "net_ns_fd": target}
    if other.mac:
        peer["address"] = other.mac
    mac = {"address": one.mac} if one.mac else {}
    with namespace.refusing(f"connect {one.ifname} and {other.ifname}"):
        socket.link("add", ifname=one.ifname, kind="veth", mtu=mtu, peer=peer, **mac)


def disconnect(netns: str, ifname: str) -> None:
    """Take a cable away, by one of its ends. One that is gone is not an error."""
    _in(netns, lambda socket: link.delete_link(socket, ifname))


def _plug(socket: IPRoute, end: CableEnd) -> None:
    port = link.get_link(socket, end.ifname)
    if end.bridge is not None:
        link.set_link(socket, port.ifindex, master=link.get_link(socket, end.bridge).ifindex)
    for address in end.addresses:
        link.add_address(socket, port.ifindex, address.ip, address.network.prefixlen)
    link.set_link(socket, port.ifindex, state="up")


def ports(netns: str) -> list[Port]:
    """The interfaces of a lab host but `lo`, with their global addresses, IPv4 first."""

    def request(socket: IPRoute) -> list[Port]:
        addresses = link.list_addresses(socket)
        return [
            Port(
                ifname=found.ifname,
                mac=found.mac,
                addresses=tuple(addresses.get(found.ifindex, ())),
            )
            for found in link.list_links(socket)
            if not found.loopback
        ]

    return _in(netns, request)


def addresses(netns: str, ifnames: Collection[str]) -> dict[str, tuple[str, ...]]:
    """`192.0.2.1/24`, by interface: the global ones, as a cable end takes them."""

    def request(socket: IPRoute) -> dict[str, tuple[str, ...]]:
        by_index = link.list_prefixed(socket)
        return {
            found.ifname: tuple(map(str, by_index.get(found.ifindex, ())))
            for found in link.list_links(socket)
            if found.ifname in ifnames
        }

    return _in(netns, request)
