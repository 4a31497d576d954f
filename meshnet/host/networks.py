"""Which networks this host is on or has routes to, by its own routing tables.

Source: proc(5), /proc/net/route (addresses as host-endian words) and /proc/net/ipv6_route.
"""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import attrs

from meshnet.model.addressing import Prefix

RTF_UP, RTF_GATEWAY, RTF_REJECT = 0x1, 0x2, 0x200
RTF_LOCAL = 0x80000000


@attrs.frozen
class Networks:
    on_link: tuple[Prefix, ...]
    """Reached without a router."""
    routed: tuple[Prefix, ...]
    """Reached through one; the default routes are not among them."""


def read(net: Path = Path("/proc/net")) -> Networks:
    """Of this network namespace. Loopback, link-local and multicast are nobody's."""
    found = [*_ipv4(net / "route"), *_ipv6(net / "ipv6_route")]
    usable = [(prefix, routed) for prefix, routed in found if _counts(prefix)]
    return Networks(
        on_link=tuple(dict.fromkeys(prefix for prefix, routed in usable if not routed)),
        routed=tuple(dict.fromkeys(prefix for prefix, routed in usable if routed)),
    )


def _counts(prefix: Prefix) -> bool:
    address = prefix.network_address
    special = address.is_loopback or address.is_link_local or address.is_multicast
    return prefix.prefixlen > 0 and not special


def _ipv4(table: Path) -> list[tuple[Prefix, bool]]:
    found: list[tuple[Prefix, bool]] = []
    for line in _lines(table)[1:]:
        _ifname, destination, _gateway, flags, _ref, _use, _metric, mask = line.split()[:8]
        if _is_route(int(flags, 16)):
            network = IPv4Network((_ipv4_word(destination), str(_ipv4_word(mask))))
            found.append((network, bool(int(flags, 16) & RTF_GATEWAY)))
    return found


def _ipv4_word(text: str) -> IPv4Address:
    return IPv4Address(int(text, 16).to_bytes(4, sys.byteorder))


def _ipv6(table: Path) -> list[tuple[Prefix, bool]]:
    found: list[tuple[Prefix, bool]] = []
    for line in _lines(table):
        fields = line.split()
        flags = int(fields[8], 16)
        if _is_route(flags) and fields[9] != "lo":
            network = IPv6Network((bytes.fromhex(fields[0]), int(fields[1], 16)))
            found.append((network, bool(flags & RTF_GATEWAY)))
    return found


def _is_route(flags: int) -> bool:
    return bool(flags & RTF_UP) and not flags & (RTF_REJECT | RTF_LOCAL)


def _lines(table: Path) -> list[str]:
    """A kernel without that family has no such file."""
    return table.read_text().splitlines() if table.exists() else []
