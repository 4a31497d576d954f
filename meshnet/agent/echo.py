"""Echoes of a chosen size that travel as an endpoint's packets do, and what comes back.

Formats: RFC 7348 (VXLAN), RFC 8926 (Geneve without options), RFC 792 and RFC 4443 (echo,
"fragmentation needed", "packet too big"). Numbers of socket options: include/uapi/linux/in.h,
in6.h, icmp.h, icmpv6.h.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import attrs

from meshnet.logic.path_mtu import overhead
from meshnet.model.addressing import Address
from meshnet.model.cluster import GENEVE_PORT, VXLAN_PORT
from meshnet.model.dataplane import Mode
from meshnet.model.identity import ReservedIdentity

COOKIE_BYTES = 8
PORTS = {Mode.VXLAN: VXLAN_PORT, Mode.GENEVE: GENEVE_PORT}
HEADS = {Mode.VXLAN: 0x08000000, Mode.GENEVE: 0x00006558}
"""The first word: VXLAN's flag that there is a VNI; Geneve's inner protocol, Ethernet."""

ECHO = {4: 8, 6: 128}
REPLY = {4: 0, 6: 129}
TOO_BIG = {4: 3, 6: 2}
FRAGMENTATION_NEEDED = 4
NEXT_HEADER = {4: 1, 6: 58}

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3
"""\"Do not fragment" is set, and what the kernel has heard of the path is not asked."""
IP_PKTINFO = 8
SOL_RAW, ICMP_FILTER = 255, 1
SOL_ICMPV6, ICMPV6_FILTER = 58, 1


@attrs.frozen
class Answer:
    cookie: bytes


@attrs.frozen
class TooBig:
    """A router's word about a packet of ours."""

    destination: Address
    mtu: int


def _fold(data: bytes) -> int:
    """RFC 1071, complemented."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _message(
    source: Address, destination: Address, identifier: int, cookie: bytes, length: int
) -> bytes:
    """An ICMP echo of `length` bytes, with its checksum: the padding adds nothing to it."""
    version = source.version
    head = struct.pack("!BBHHH", ECHO[version], 0, 0, identifier, 0) + cookie
    pseudo = b""
    if version == 6:
        pseudo = source.packed + destination.packed
        pseudo += struct.pack("!II", length, NEXT_HEADER[version])
    total = _fold(pseudo + head)
    return (head[:2] + struct.pack("!H", total) + head[4:]).ljust(length, b"\0")


def _packet(source: Address, destination: Address, message: bytes) -> bytes:
    """The inner IP packet. IPv4 says "do not fragment", as its measured size would change."""
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(message), NEXT_HEADER[6], 64)
        return head + source.packed + destination.packed + message
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0x4000, 64, NEXT_HEADER[4], 0)
    head += source.packed + destination.packed
    return head[:10] + struct.pack("!H", _fold(head)) + head[12:] + message


def tunnelled(
    source: Address,
    destination: Address,
    *,
    identifier: int,
    cookie: bytes,
    mode: Mode,
    length: int,
) -> bytes:
    """What goes into the outer UDP packet: an inner IP packet of `length` bytes, ours."""
    headers = 20 if source.version == 4 else 40
    message = _message(source, destination, identifier, cookie, length - headers)
    tunnel = struct.pack("!II", HEADS[mode], ReservedIdentity.REMOTE_NODE << 8)
    ether_type = 0x0800 if source.version == 4 else 0x86DD
    ethernet = b"\x02" + bytes(5) + b"\x02" + bytes(5) + struct.pack("!H", ether_type)
    return tunnel + ethernet + _packet(source, destination, message)


class Sender:
    """Sockets of one IP version, for outer packets whose size nobody changes."""

    def __init__(self, version: int) -> None:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        level, option = (
            (socket.IPPROTO_IP, IP_MTU_DISCOVER)
            if version == 4
            else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
        )
        self._version = version
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        self._icmp = socket.socket(family, socket.SOCK_RAW, NEXT_HEADER[version])
        for sock in (self._udp, self._icmp):
            sock.setblocking(False)
            sock.setsockopt(level, option, PMTUDISC_PROBE)

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._udp.close()
        self._icmp.close()

    def send(
        self,
        *,
        own: Address,
        peer: Address,
        inner: tuple[Address, Address],
        identifier: int,
        cookie: bytes,
        mode: Mode,
        size: int,
    ) -> None:
        """One probe, an outer IP packet of `size` bytes.

        Args:
            own, peer: the outer addresses.
            inner: the gateways' addresses, from and to.

        Raises:
            OSError: there is no route, or the interface does not take so much.
        """
        if mode is Mode.NATIVE:
            length = size - (20 if self._version == 4 else 40)
            data = _message(own, peer, identifier, cookie, length)
            self._icmp.sendmsg([data], [self._from(own)], 0, (str(peer), 0))
            return
        length = size - overhead(self._version, mode)
        data = tunnelled(*inner, identifier=identifier, cookie=cookie, mode=mode, length=length)
        self._udp.sendmsg([data], [self._from(own)], 0, (str(peer), PORTS[mode]))

    def _from(self, own: Address) -> tuple[int, int, bytes]:
        """The source that the peer knows us by, whatever the routing table would choose."""
        if self._version == 4:
            return (socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + own.packed + bytes(4))
        return (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, own.packed + bytes(4))


def listener(version: int) -> socket.socket:
    """Hears echo replies and "too big", and nothing else."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_RAW, NEXT_HEADER[version])
    sock.setblocking(False)
    wanted = (REPLY[version], TOO_BIG[version])
    if version == 4:  # a set bit keeps a type out
        keep_out = ~sum(1 << kind for kind in wanted) & 0xFFFFFFFF
        sock.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", keep_out))
    else:
        words = [0xFFFFFFFF] * 8
        for kind in wanted:
            words[kind >> 5] &= ~(1 << (kind & 31))
        sock.setsockopt(SOL_ICMPV6, ICMPV6_FILTER, struct.pack("=8I", *words))
    return sock


def read(version: int, packet: bytes, identifier: int) -> Answer | TooBig | None:
    """What a raw socket gave; IPv4's comes with its IP header."""
    message = packet[(packet[0] & 15) * 4 :] if version == 4 and packet else packet
    if len(message) < 8:
        return None
    kind, code, _, mine, mtu = struct.unpack_from("!BBHHH", message)
    if kind == REPLY[version] and mine == identifier and len(message) >= 8 + COOKIE_BYTES:
        return Answer(message[8 : 8 + COOKIE_BYTES])
    quoted = message[8:]
    if version == 4 and (kind, code) == (TOO_BIG[4], FRAGMENTATION_NEEDED) and len(quoted) >= 20:
        return TooBig(IPv4Address(quoted[16:20]), mtu)
    if version == 6 and kind == TOO_BIG[6] and len(quoted) >= 40:
        (wide,) = struct.unpack_from("!I", message, 4)
        return TooBig(IPv6Address(quoted[24:40]), wide)
    return None
