"""Does a peer node answer, and how fast: ICMP echo to its underlay address.

Every node probes every other. The cost is one small packet a peer every `INTERVAL_S`; of those
that have backends of a service, every `URGENT_S`, since clients wait for the answer.
Formats: RFC 792 (echo), RFC 4443 section 4 (echo; the kernel fills in its checksum).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address

import attrs

from meshnet.model.addressing import Address

INTERVAL_S = 5.0
URGENT_S = 0.5
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
    asked_at: float = -INTERVAL_S
    """time.monotonic() of the last echo."""


class Prober:
    """Keeps `health` true for the addresses that `peers()` names.

    Args:
        urgent: those of them that are asked more often.
        changed: called when one of them began or ceased to answer.
    """

    def __init__(
        self,
        peers: Callable[[], Iterable[Address]],
        *,
        urgent: Callable[[], Collection[Address]] = tuple,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._peers = peers
        self._urgent = urgent
        self._changed = changed
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
                    self._send_round(sockets, time.monotonic())
                    await asyncio.sleep(URGENT_S)

    def _send_round(self, sockets: dict[int, socket.socket], now: float) -> None:
        """Ask whoever is due."""
        peers = set(self._peers())
        for address in peers - self.health.keys():
            self.health[address] = PeerHealth()
        for gone in self.health.keys() - peers:
            del self.health[gone]
            self._sent.pop(gone, None)
        self._sequence = (self._sequence + 1) & 0xFFFF
        urgent = self._urgent()
        for address in peers:
            health = self.health[address]
            interval_s = URGENT_S if address in urgent else INTERVAL_S
            if now - health.asked_at < interval_s * 0.9:
                continue
            self._miss(address)
            health.asked_at = now
            self._sent[address] = (self._sequence, now)
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
            if health.lost == LOST_AFTER:
                health.reachable = False
                health.rtt_ms = None
                self._changed()

    async def _receive(self, version: int, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            packet, sender = await loop.sock_recvfrom(sock, 2048)
            address = ip_address(sender[0].partition("%")[0])
            sent = self._sent.get(address)
            if sent is not None and _is_reply(version, packet, self._id, sent[0]):
                del self._sent[address]
                rtt_ms = round((time.monotonic() - sent[1]) * 1000, 3)
                before = self.health[address]
                self.health[address] = PeerHealth(
                    reachable=True, rtt_ms=rtt_ms, asked_at=before.asked_at
                )
                if not before.reachable:
                    self._changed()


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
