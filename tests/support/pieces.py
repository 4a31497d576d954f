"""Packets that are about another one: ICMP errors with what they quote, and fragments."""

from __future__ import annotations

import struct

from tests.support.packets import ICMP, ICMPV6, Packet, Payload, Read, ip, summed

KINDS = {4: [(3, 3), (3, 4), (11, 0), (12, 0)], 6: [(1, 4), (2, 0), (3, 0), (4, 1)]}
"""Type and code of errors that go to the sender of what they quote."""
HEADER = {4: 20, 6: 40}


def error(
    family: int, kind: tuple[int, int], source: str, to: str, quoted: bytes, length: int = 8
) -> Packet:
    """Quotes the IP header and `length` bytes more."""
    body = struct.pack("!BBHI", *kind, 0, 1400) + quoted[: HEADER[family] + length]
    payload = Payload({4: ICMP, 6: ICMPV6}[family], body)
    return ip(source, to, summed(source, to, payload))


def quote(packet: Read) -> bytes:
    return packet.payload[8:]


def fragments(family: int, source: str, to: str, payload: Payload) -> list[Packet]:
    """A first one of 64 bytes, and the rest."""
    cut = 64
    first, rest = payload.data[:cut], payload.data[cut:]
    if family == 4:
        return [
            ip(source, to, Payload(payload.protocol, first), fragment=0x2000),
            ip(source, to, Payload(payload.protocol, rest), fragment=cut // 8),
        ]
    packets = []
    for data, flags in ((first, 1), (rest, cut)):
        header = struct.pack("!BBHI", payload.protocol, 0, flags, 0x1234)
        packets.append(ip(source, to, Payload(44, header + data)))
    return packets


def whole(packets: list[Read], family: int) -> bytes:
    skipped = 0 if family == 4 else 8
    return b"".join(packet.payload[skipped:] for packet in packets)
