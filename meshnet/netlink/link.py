"""Links and their addresses: read, and made as wished. Blocking, over one netlink socket."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any

import attrs
from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from meshnet.errors import NetlinkRefused
from meshnet.model.addressing import Address, host_prefix
from meshnet.netlink.namespace import refusing

IFF_LOOPBACK = 0x8
SCOPE_GLOBAL = 0
IFA_F_NODAD = 0x02
IFA_F_UNFIT = 0x01 | 0x08 | 0x20
"""IFA_F_TEMPORARY, DADFAILED, DEPRECATED (linux/if_addr.h): not to be told to others."""


@attrs.frozen(kw_only=True)
class Link:
    ifname: str
    ifindex: int
    kind: str
    """`veth`, `vxlan`, `bridge`...; empty for hardware and loopback."""
    mac: str
    mtu: int
    loopback: bool
    peer: int | None
    """Ifindex of a veth's other end, in that end's namespace."""
    peer_netns: int | None
    """Id of that namespace as ours knows it; None when it is ours."""
    detail: dict[str, Any]
    """IFLA_INFO_DATA by attribute name."""


def _read(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA") if info else None
    return Link(
        ifname=message.get_attr("IFLA_IFNAME"),
        ifindex=message["index"],
        kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU"),
        loopback=bool(message["flags"] & IFF_LOOPBACK),
        peer=message.get_attr("IFLA_LINK"),
        peer_netns=message.get_attr("IFLA_LINK_NETNSID"),
        detail=dict(data["attrs"]) if data and "attrs" in data else {},
    )


def list_links(socket: IPRoute) -> list[Link]:
    with refusing("list links"):
        return [_read(message) for message in socket.get_links()]


def find_link(socket: IPRoute, name: str | int) -> Link | None:
    """By name or ifindex; None when there is none."""
    wanted = {"ifname": name} if isinstance(name, str) else {"index": name}
    try:
        found = socket.link("get", **wanted)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise NetlinkRefused(f"find link {name}", error.code, str(error)) from error
    return _read(found[0])


def get_link(socket: IPRoute, name: str | int) -> Link:
    """The same for a link that must be there."""
    found = find_link(socket, name)
    if found is None:
        raise NetlinkRefused(f"find link {name}", errno.ENODEV, "it does not exist")
    return found


def set_link(socket: IPRoute, ifindex: int, **changes: object) -> None:
    with refusing(f"change link {ifindex} ({', '.join(changes)})"):
        socket.link("set", index=ifindex, **changes)


def delete_link(socket: IPRoute, ifname: str) -> None:
    """An absent link is not an error."""
    link = find_link(socket, ifname)
    if link is not None:
        with refusing(f"delete link {ifname}", errno.ENODEV):
            socket.link("del", index=link.ifindex)


def list_addresses(socket: IPRoute) -> dict[int, list[Address]]:
    """Global addresses that others may be told, by ifindex; IPv4 first."""
    return {
        index: [interface.ip for interface in ours] for index, ours in list_prefixed(socket).items()
    }


def list_prefixed(socket: IPRoute) -> dict[int, list[IPv4Interface | IPv6Interface]]:
    """The same, each with the length of its prefix."""
    found: dict[int, list[IPv4Interface | IPv6Interface]] = {}
    with refusing("list addresses"):
        for message in socket.get_addr():
            flags = message.get_attr("IFA_FLAGS") or message["flags"]
            if message["scope"] == SCOPE_GLOBAL and not flags & IFA_F_UNFIT:
                text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                prefixed = ip_interface(f"{text}/{message['prefixlen']}")
                found.setdefault(message["index"], []).append(prefixed)
    return {index: sorted(ours, key=lambda a: a.version) for index, ours in found.items()}


def set_addresses(socket: IPRoute, ifindex: int, wanted: Iterable[Address]) -> None:
    """Exactly these addresses, each /32 or /128, without duplicate detection."""
    wanted = set(wanted)
    with refusing(f"set addresses of link {ifindex}", errno.EADDRNOTAVAIL):
        for message in socket.get_addr(index=ifindex):
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            address, length = ip_address(text), message["prefixlen"]
            if address in wanted and length == address.max_prefixlen:
                wanted.discard(address)
            elif not address.is_link_local:
                socket.addr("del", index=ifindex, address=text, prefixlen=length)
    for address in sorted(wanted, key=lambda a: (a.version, int(a))):
        add_address(socket, ifindex, address, host_prefix(address).prefixlen)


def add_address(socket: IPRoute, ifindex: int, address: Address, prefixlen: int) -> None:
    with refusing(f"add address {address}/{prefixlen} to link {ifindex}", errno.EEXIST):
        socket.addr(
            "add",
            index=ifindex,
            address=str(address),
            prefixlen=prefixlen,
            **({"flags": IFA_F_NODAD} if address.version == 6 else {}),
        )
