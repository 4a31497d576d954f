"""Packets as bytes, built from the inside out and taken apart again.

frame(ip("10.1.0.10", "10.2.0.10", udp(4000, 53, b"?")))
vxlan_frame("192.0.2.2", "192.0.2.1", vni=0x20100, inner=frame(...))
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import attrs

ETH_IPV4, ETH_IPV6, ETH_ARP, ETH_VLAN = 0x0800, 0x86DD, 0x0806, 0x8100
TCP, UDP, ICMP, ICMPV6, FRAGMENT, DSTOPTS = 6, 17, 1, 58, 44, 60
ROUTING, HOPOPTS, IPIP, SIT, GRE = 43, 0, 4, 41, 47
VXLAN_PORT, GENEVE_PORT = 8472, 6081
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
LOOSE_ROUTE = bytes([131, 7, 4, 192, 0, 2, 9, 0])
RECORD_ROUTE = bytes([7, 7, 4, 0, 0, 0, 0, 0])
ROUTER_ALERT = bytes([148, 4, 0, 0])
"""IPv4 options (RFC 791, RFC 2113)."""


@attrs.frozen
class Payload:
    """What an IP header carries, with the number that the header names it by."""

    protocol: int
    data: bytes


@attrs.frozen
class Packet:
    """An IP packet with the Ethernet type it needs."""

    ether_type: int
    data: bytes


def checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def l4_checksum(source: bytes, destination: bytes, protocol: int, data: bytes) -> int:
    """Over pseudo header (but for ICMP) and message: 0 when its own checksum is right (RFC 9293
    section 3.1, RFC 8200 section 8.1)."""
    if protocol == ICMP:
        return checksum(data)
    return checksum(source + destination + struct.pack("!II", len(data), protocol) + data)


def icmpv6_checksum(packet: Read) -> int:
    return l4_checksum(
        packet.source.packed, packet.destination.packed, packet.protocol, packet.payload
    )


def summed(source: str, destination: str, payload: Payload) -> Payload:
    """With the checksum that the sender's kernel writes."""
    at = {TCP: 16, UDP: 6}.get(payload.protocol, 2)
    a, b = ip_address(source).packed, ip_address(destination).packed
    value = l4_checksum(a, b, payload.protocol, payload.data)
    data = payload.data[:at] + struct.pack("!H", value or 0xFFFF) + payload.data[at + 2 :]
    return Payload(payload.protocol, data)


def udp(
    source: int, destination: int, data: bytes = b"hello", *, length: int | None = None
) -> Payload:
    """`length`: what the header says, when it is to lie."""
    told = 8 + len(data) if length is None else length
    return Payload(UDP, struct.pack("!HHHH", source, destination, told, 0) + data)


def tcp(source: int, destination: int, data: bytes = b"", *, words: int = 5) -> Payload:
    """`words`: of its header, as the header says."""
    header = struct.pack("!HHIIBBHHH", source, destination, 1, 0, words << 4, 0x02, 1024, 0, 0)
    return Payload(TCP, header + data)


def segment(source: int, destination: int, flags: int) -> Payload:
    """TCP without data, with these flags."""
    return Payload(
        TCP, struct.pack("!HHIIBBHHH", source, destination, 1, 1, 5 << 4, flags, 1024, 0, 0)
    )


def ip(
    source: str,
    destination: str,
    payload: Payload,
    *,
    ttl: int = 64,
    fragment: int = 0,
    options: bytes = b"",
) -> Packet:
    """IPv4 or IPv6, as the addresses say. `fragment`: IPv4's flags-and-offset word."""
    a, b = ip_address(source), ip_address(destination)
    assert a.version == b.version, "both ends are of one family"
    if isinstance(a, IPv6Address):
        header = struct.pack("!IHBB", 6 << 28, len(payload.data), payload.protocol, ttl)
        return Packet(ETH_IPV6, header + a.packed + b.packed + payload.data)
    words = 5 + len(options) // 4
    fixed = struct.pack(
        "!BBHHHBBH", 4 << 4 | words, 0, 4 * words + len(payload.data), 1, fragment, ttl,
        payload.protocol, 0,
    )  # fmt: skip
    header = fixed + a.packed + b.packed + options
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return Packet(ETH_IPV4, header + payload.data)


def extension(payload: Payload, *, kind: int = DSTOPTS) -> Payload:
    """An IPv6 extension header of 8 bytes around a payload."""
    return Payload(kind, bytes([payload.protocol, 0]) + bytes(6) + payload.data)


def frame(packet: Packet, *, to: str = "020000000001", of: str = "020000000002") -> bytes:
    return bytes.fromhex(to + of) + struct.pack("!H", packet.ether_type) + packet.data


def vxlan(vni: int, inner: bytes, *, flags: int = 0x08000000) -> bytes:
    return struct.pack("!II", flags, vni << 8) + inner


def vxlan_frame(
    source: str, destination: str, *, vni: int, inner: bytes, port: int = VXLAN_PORT
) -> bytes:
    return frame(ip(source, destination, udp(50000, port, vxlan(vni, inner))))


def geneve(vni: int, inner: bytes, *, options: bytes = b"", flags: int = 0) -> bytes:
    """`flags`: the second byte, 0x40 for critical options, 0x80 for control."""
    head = struct.pack("!BBHI", len(options) // 4, flags, 0x6558, vni << 8)
    return head + options + inner


def geneve_frame(source: str, destination: str, *, vni: int, inner: bytes, **more: Any) -> bytes:
    return frame(ip(source, destination, udp(50000, GENEVE_PORT, geneve(vni, inner, **more))))


@attrs.frozen
class Read:
    """An Ethernet frame with one IP packet, taken apart."""

    to: str
    of: str
    ether_type: int
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    protocol: int
    ttl: int
    payload: bytes

    @property
    def ports(self) -> tuple[int, int]:
        source, destination = struct.unpack_from("!HH", self.payload)
        return source, destination

    @property
    def vni(self) -> int:
        flags, number = struct.unpack_from("!II", self.payload, 8)
        assert flags == 0x08000000, "VXLAN with the VNI flag and nothing else"
        return int(number >> 8)

    @property
    def inner(self) -> Read:
        return read(self.payload[16:])


def read(data: bytes) -> Read:
    """Checks lengths and the IPv4 checksum on the way."""
    to, of, (ether_type,) = data[:6].hex(), data[6:12].hex(), struct.unpack_from("!H", data, 12)
    packet = data[14:]
    if ether_type == ETH_IPV4:
        length, ttl, protocol = struct.unpack_from("!2xH4xBB", packet)
        assert length == len(packet), "total length is the packet's"
        assert checksum(packet[:20]) == 0, "IPv4 header checksum"
        source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
        return Read(to, of, ether_type, source, destination, protocol, ttl, packet[20:])
    assert ether_type == ETH_IPV6, f"not an IP packet: {ether_type:#x}"
    length, protocol, ttl = struct.unpack_from("!4xHBB", packet)
    assert length == len(packet) - 40, "payload length is the packet's"
    source6, destination6 = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    return Read(to, of, ether_type, source6, destination6, protocol, ttl, packet[40:])
