"""Does a packet of ours reach a peer as it is, without a tunnel? An echo request, sent natively.

From our own address in our PodCIDR to the peer's in its: the very packets that native routing
would send. They are handed to the underlay by hand (AF_PACKET), since the host's routes go by
the tunnel until the answer is yes. The peer's `receive_native` takes them only where its own
cluster asked for native routing, so its consent is part of the answer; how the answer travels
back is the peer's to say. Formats: RFC 791, 792, 8200, 4443.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Collection
from ipaddress import ip_address

import attrs

from meshnet.model.addressing import Address
from meshnet.model.kernel import Hop
from meshnet.netlink.api import Netlink

FIRST_S = 0.5
INTERVAL_S = 5.0
"""Between two probes of a peer that answers."""
LONGEST_S = 60.0
"""Between two of one that never does: each is a refused packet in its counters."""
DOUBT_S = 1.0
"""Until the next one after a probe was not answered that used to be."""
LOST_AFTER = 3
"""A way is lost when this many probes in a row were not answered."""

ECHO = {4: 8, 6: 128}
REPLY = {4: 0, 6: 129}
ETHER_TYPE = {4: 0x0800, 6: 0x86DD}
ICMP_FILTER, ICMPV6_FILTER = 1, 1
SOL_RAW = 255
HOPS = 64


@attrs.frozen(kw_only=True)
class Target:
    """One native way to be tried."""

    source: Address
    """Ours, inside our PodCIDR."""
    destination: Address
    """The peer's, inside its PodCIDR."""
    hop: Address


@attrs.define
class _Trial:
    confirmed: bool = False
    pause_s: float = FIRST_S
    due: float = 0.0
    awaited: int | None = None
    """The sequence number of the probe that is under way."""
    lost: int = 0


class NativeProber:
    """Keeps `confirmed` true for the targets it was given last; `changed` is called when a
    way was won or lost."""

    def __init__(self, netlink: Netlink, changed: Callable[[], None]) -> None:
        self._netlink = netlink
        self._changed = changed
        self._id = (os.getpid() ^ 0x4D65) & 0xFFFF
        self._sequence = 0
        self._trials: dict[Target, _Trial] = {}
        self._woken = asyncio.Event()

    @property
    def confirmed(self) -> frozenset[Target]:
        return frozenset(target for target, trial in self._trials.items() if trial.confirmed)

    def aim(self, targets: Collection[Target]) -> None:
        """Probe these from now on, and no others."""
        for gone in self._trials.keys() - set(targets):
            del self._trials[gone]
        for fresh in set(targets) - self._trials.keys():
            self._trials[fresh] = _Trial()
            self._woken.set()

    async def run(self) -> None:
        """Never returns."""
        with contextlib.ExitStack() as stack:
            wire = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
            async with asyncio.TaskGroup() as group:
                for version in (4, 6):
                    replies = stack.enter_context(_reply_socket(version))
                    group.create_task(self._receive(version, replies))
                while True:
                    self._woken.clear()
                    wait_s = await self._round(wire)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await self._woken.wait()

    async def _round(self, wire: socket.socket) -> float | None:
        """Send what is due; answers the seconds until something is again."""
        now = time.monotonic()
        due = [target for target, trial in self._trials.items() if trial.due <= now]
        hops = await self._netlink.hops_to({target.hop for target in due}, macs=True)
        for target in due:
            trial = self._trials.get(target)
            if trial is not None:
                self._try(wire, target, trial, hops.get(target.hop), now)
        next_due = min((trial.due for trial in self._trials.values()), default=None)
        return None if next_due is None else max(0.0, next_due - time.monotonic())

    def _try(
        self, wire: socket.socket, target: Target, trial: _Trial, hop: Hop | None, now: float
    ) -> None:
        if trial.awaited is not None:
            self._missed(trial)
        self._sequence = (self._sequence + 1) & 0xFFFF
        trial.awaited = self._sequence
        if hop is not None and hop.mac is not None:
            packet = echo(target.source, target.destination, self._id, self._sequence)
            kind = ETHER_TYPE[target.destination.version]
            mac = bytes.fromhex(hop.mac.replace(":", ""))
            with contextlib.suppress(OSError):  # the interface is down: there is no answer
                wire.sendto(packet, (socket.if_indextoname(hop.ifindex), kind, 0, 0, mac))
        if trial.confirmed:
            trial.due = now + (DOUBT_S if trial.lost else INTERVAL_S)
        else:
            trial.due = now + trial.pause_s
            trial.pause_s = min(2 * trial.pause_s, LONGEST_S)

    def _missed(self, trial: _Trial) -> None:
        trial.lost += 1
        if trial.confirmed and trial.lost >= LOST_AFTER:
            trial.confirmed, trial.pause_s = False, FIRST_S
            self._changed()

    async def _receive(self, version: int, replies: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            packet, sender = await loop.sock_recvfrom(replies, 2048)
            sequence = answered(version, packet, self._id)
            if sequence is not None:
                self._answered(ip_address(sender[0].partition("%")[0]), sequence)

    def _answered(self, sender: Address, sequence: int) -> None:
        for target, trial in self._trials.items():
            if target.destination == sender and trial.awaited == sequence:
                trial.awaited, trial.lost = None, 0
                trial.due = time.monotonic() + INTERVAL_S
                if not trial.confirmed:
                    trial.confirmed = True
                    self._changed()


def _reply_socket(version: int) -> socket.socket:
    """Raw ICMP, and of it echo replies alone (raw(7); RFC 3542 section 3.2)."""
    if version == 4:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        blocked = ~(1 << REPLY[4]) & 0xFFFFFFFF
        sock.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", blocked))
    else:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        words = [0xFFFFFFFF] * 8
        words[REPLY[6] >> 5] &= ~(1 << (REPLY[6] & 31))
        sock.setsockopt(socket.IPPROTO_ICMPV6, ICMPV6_FILTER, struct.pack("=8I", *words))
    sock.setblocking(False)
    return sock


def echo(source: Address, destination: Address, identifier: int, sequence: int) -> bytes:
    """An echo request from the IP header on, with every checksum it needs."""
    version = source.version
    message = struct.pack("!BBHHH", ECHO[version], 0, 0, identifier, sequence)
    if version == 6:
        pseudo = source.packed + destination.packed
        pseudo += struct.pack("!II", len(message), socket.IPPROTO_ICMPV6)
        message = _summed(message, 2, before=pseudo)
        fixed = struct.pack("!IHBB", 6 << 28, len(message), socket.IPPROTO_ICMPV6, HOPS)
        return fixed + source.packed + destination.packed + message
    message = _summed(message, 2)
    length = 20 + len(message)
    fixed = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0x4000, HOPS, socket.IPPROTO_ICMP, 0)
    return _summed(fixed + source.packed + destination.packed, 10) + message


def _summed(data: bytes, offset: int, *, before: bytes = b"") -> bytes:
    """With its checksum (RFC 1071) at `offset`, which was zero."""
    total = sum(struct.unpack(f"!{(len(before) + len(data)) // 2}H", before + data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return data[:offset] + struct.pack("!H", ~total & 0xFFFF) + data[offset + 2 :]


def answered(version: int, packet: bytes, identifier: int) -> int | None:
    """The sequence number of a reply to us. A raw IPv4 socket delivers the IP header too."""
    offset = (packet[0] & 0x0F) * 4 if version == 4 and packet else 0
    if len(packet) < offset + 8:
        return None
    kind, _code, _checksum, who, sequence = struct.unpack_from("!BBHHH", packet, offset)
    return int(sequence) if (kind, who) == (REPLY[version], identifier) else None
