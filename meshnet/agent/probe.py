"""Does a peer node answer, and how fast: ICMP echo to its underlay address.

Every node probes every other. The cost is one small packet a peer every `INTERVAL_S`.
Formats: RFC 792 (echo), RFC 4443 section 4 (echo; the kernel fills in its checksum).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address

import attrs

from meshnet.model.addressing import Address

INTERVAL_S = 5.0
LOST_AFTER = 2
"""A peer is unreachable when this many echoes in a row were not answered."""

ECHO_V4, REPLY_V4 = 8, 0
ECHO_V6, REPLY_V6 = 128, 129


@attrs.define
class PeerHealth:
    reachable: bool = False
    rtt_ms: float | None = None
    lost: int = 0
    """Echoes in a row without an answer."""


class Prober:
    """Keeps `health` true for the addresses that `peers()` names."""

    def __init__(self, peers: Callable[[], Iterable[Address]]) -> None:
        self._peers = peers
        self._id = os.getpid() & 0xFFFF
        self._sequence = 0
        self._sent: dict[Address, tuple[int, float]] = {}
        self.health: dict[Address, PeerHealth] = {}

    def answering(self) -> set[Address]:
        """Who answered lately."""
        return {address for address, health in self.health.items() if health.reachable}

    def silent(self) -> set[Address]:
        """Who does not answer any more; who was never asked is not among them."""
        return {address for address, each in self.health.items() if each.lost >= LOST_AFTER}

    async def run(self) -> None:
        """Never returns."""
        with _icmp_socket(4) as v4, _icmp_socket(6) as v6:
            sockets = {4: v4, 6: v6}
            async with asyncio.TaskGroup() as group:
                for version, sock in sockets.items():
                    group.create_task(self._receive(version, sock))
                while True:
                    self._send_round(sockets)
                    await asyncio.sleep(INTERVAL_S)

    def _send_round(self, sockets: dict[int, socket.socket]) -> None:
        peers = set(self._peers())
        for address in peers - self.health.keys():
            self.health[address] = PeerHealth()
        for gone in self.health.keys() - peers:
            del self.health[gone]
            self._sent.pop(gone, None)
        self._sequence = (self._sequence + 1) & 0xFFFF
        for address in peers:
            self._miss(address)
            self._sent[address] = (self._sequence, time.monotonic())
            packet = _echo(address.version, self._id, self._sequence)
            try:
                sockets[address.version].sendto(packet, (str(address), 0))
            except OSError:
                continue  # no route: the echo counts as lost

    def _miss(self, address: Address) -> None:
        """The previous echo was not answered before this round."""
        if address in self._sent:
            health = self.health[address]
            health.lost += 1
            if health.lost >= LOST_AFTER:
                health.reachable = False
                health.rtt_ms = None

    async def _receive(self, version: int, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            packet, sender = await loop.sock_recvfrom(sock, 2048)
            address = ip_address(sender[0].partition("%")[0])
            sent = self._sent.get(address)
            if sent is not None and _is_reply(version, packet, self._id, sent[0]):
                del self._sent[address]
                rtt_ms = round((time.monotonic() - sent[1]) * 1000, 3)
                self.health[address] = PeerHealth(reachable=True, rtt_ms=rtt_ms)


def _icmp_socket(version: int) -> socket.socket:
    family, protocol = (
        (socket.AF_INET, socket.IPPROTO_ICMP)
        if version == 4
        else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    )
    sock = socket.socket(family, socket.SOCK_RAW, protocol)
    sock.setblocking(False)
    return sock


def _echo(version: int, identifier: int, sequence: int) -> bytes:
    kind = ECHO_V4 if version == 4 else ECHO_V6
    packet = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence)
    if version == 6:
        return packet
    total = sum(struct.unpack("!4H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBHHH", kind, 0, ~total & 0xFFFF, identifier, sequence)


def _is_reply(version: int, packet: bytes, identifier: int, sequence: int) -> bool:
    """A raw IPv4 socket delivers the IP header too, an IPv6 one does not."""
    offset = (packet[0] & 0x0F) * 4 if version == 4 else 0
    if len(packet) < offset + 8:
        return False
    kind, _code, _checksum, got_id, got_sequence = struct.unpack_from("!BBHHH", packet, offset)
    expected = REPLY_V4 if version == 4 else REPLY_V6
    return (kind, got_id, got_sequence) == (expected, identifier, sequence)
