"""What a well-formed packet is, once more and in plain Python.

The rules of bpf/include/{parse,wellformed,nesting}.h, read from bytes by other code than
theirs: `judge` is what the programs are compared with. It follows the RFCs named there, not
the C.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import attrs

from meshnet.dataplane.abi import DropReason as R
from tests.support.packets import (
    DSTOPTS,
    ETH_IPV4,
    ETH_IPV6,
    FRAGMENT,
    HOPOPTS,
    ICMP,
    ICMPV6,
    ROUTING,
    TCP,
    UDP,
)

EXTENSIONS = {HOPOPTS, ROUTING, DSTOPTS, FRAGMENT}
MOST_EXTENSIONS = 4


@attrs.define
class Refused(Exception):
    reason: R


@attrs.frozen
class Parsed:
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    protocol: int
    ports: tuple[int, int] | None
    """None: not TCP or UDP, or not the first fragment."""
    length: int
    """Of the IP packet, without what pads the frame."""
    piece: tuple[int, int] | None
    """Identification and offset, of a fragment that is not all there is."""


@attrs.frozen
class _Part:
    """What is behind the IP headers."""

    protocol: int
    data: bytes
    offset: int
    more: bool
    id: int


def parse(ether_type: int, packet: bytes) -> Parsed:
    """Raises Refused."""
    if ether_type == ETH_IPV4:
        source, destination, length, part = _ipv4(packet)
    elif ether_type == ETH_IPV6:
        source, destination, length, part = _ipv6(packet)
    else:
        raise Refused(R.UNSUPPORTED_L3)
    _fragment(part)
    _addresses(source, destination)
    piece = (part.id, part.offset) if part.offset or part.more else None
    return Parsed(source, destination, part.protocol, _l4(part), length, piece)


class Firsts:
    """First fragments met so far: later ones need theirs (bpf/include/fragment.h)."""

    def __init__(self) -> None:
        self._met: set[tuple[object, ...]] = set()

    def lacks(self, packet: Parsed) -> bool:
        if packet.piece is None:
            return False
        number, offset = packet.piece
        of_all = packet.protocol if packet.source.version == 4 else 0
        key = (packet.source, packet.destination, number, of_all)
        if not offset:
            self._met.add(key)
        return key not in self._met


def _need(condition: bool, otherwise: R) -> None:
    if not condition:
        raise Refused(otherwise)


def _ipv4(packet: bytes) -> tuple[IPv4Address, IPv4Address, int, _Part]:
    _need(len(packet) >= 20, R.TRUNCATED)
    header, total = (packet[0] & 15) * 4, struct.unpack_from("!H", packet, 2)[0]
    _need(packet[0] >> 4 == 4 and 20 <= header <= total, R.MALFORMED)
    _need(total <= len(packet), R.TRUNCATED)
    _options(packet[20:header])
    number, word = struct.unpack_from("!HH", packet, 4)
    data = packet[header:total]
    part = _Part(packet[9], data, (word & 0x1FFF) * 8, bool(word & 0x2000), number)
    return IPv4Address(packet[12:16]), IPv4Address(packet[16:20]), total, part


def _options(options: bytes) -> None:
    while options and options[0] != 0:
        kind = options[0]
        _need(kind not in (131, 137), R.SOURCE_ROUTE)
        _need(kind in (1, 148), R.IPV4_OPTION)
        size = 1 if kind == 1 else 4
        _need(len(options) >= size, R.IPV4_OPTION)
        options = options[size:]


def _ipv6(packet: bytes) -> tuple[IPv6Address, IPv6Address, int, _Part]:
    _need(len(packet) >= 40, R.TRUNCATED)
    _need(packet[0] >> 4 == 6, R.MALFORMED)
    length, following = struct.unpack_from("!HB", packet, 4)
    _need(40 + length <= len(packet), R.TRUNCATED)
    source, destination = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    _need(source.ipv4_mapped is None and destination.ipv4_mapped is None, R.MALFORMED)
    return source, destination, 40 + length, _behind(following, packet[40 : 40 + length])


def _behind(kind: int, data: bytes) -> _Part:
    """Extension headers off."""
    offset, more, number, passed = 0, False, 0, []
    while kind in EXTENSIONS and not offset:
        _need(len(passed) < MOST_EXTENSIONS, R.EXTENSION_HEADERS)
        _need(kind != ROUTING, R.SOURCE_ROUTE)
        _need(kind != HOPOPTS or not passed, R.MALFORMED)
        _need(kind != FRAGMENT or FRAGMENT not in passed, R.MALFORMED)
        size = 8 if kind == FRAGMENT or len(data) < 2 else 8 + data[1] * 8
        _need(len(data) >= size, R.TRUNCATED)
        if kind == FRAGMENT:
            word, number = struct.unpack_from("!HI", data, 2)
            offset, more = word & 0xFFF8, bool(word & 1)
        passed.append(kind)
        kind, data = data[0], data[size:]
    return _Part(kind, data, offset, more, number)


def _fragment(part: _Part) -> None:
    if part.offset or part.more:
        _need(part.offset + len(part.data) <= 65535, R.BAD_FRAGMENT)
        _need(not part.more or len(part.data) % 8 == 0, R.BAD_FRAGMENT)
        _need(part.offset != 8 or part.protocol != TCP, R.BAD_FRAGMENT)


def _martian(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        return address.is_loopback
    return address.packed[0] in (0, 127) or address.packed[0] >= 240


def _addresses(source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address) -> None:
    _need(not _martian(source) and not source.is_multicast, R.MARTIAN_SOURCE)
    _need(destination not in (IPv4Address(0), IPv6Address(0)), R.MARTIAN_DESTINATION)
    broadcast = destination == IPv4Address("255.255.255.255")
    _need(broadcast or not _martian(destination), R.MARTIAN_DESTINATION)


def _l4(part: _Part) -> tuple[int, int] | None:
    if part.offset:
        return None
    data = part.data
    if part.protocol in (ICMP, ICMPV6):
        _need(len(data) >= 8, R.L4_TRUNCATED)
    if part.protocol == TCP:
        _need(len(data) >= 20, R.L4_TRUNCATED)
        _need(20 <= (data[12] >> 4) * 4 <= len(data), R.L4_MALFORMED)
    elif part.protocol == UDP:
        _need(len(data) >= 8, R.L4_TRUNCATED)
        (length,) = struct.unpack_from("!H", data, 4)
        _need(length >= 8 and (part.more or length <= len(data)), R.L4_MALFORMED)
    else:
        return None
    source, destination = struct.unpack_from("!HH", data)
    return source, destination
