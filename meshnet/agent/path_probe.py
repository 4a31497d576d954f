"""How large a packet reaches each peer: echoes in the tunnel's own format, of many sizes.

A probe is what the dataplane itself would send: outer UDP with "do not fragment" to the
peer's tunnel port, VNI 6 (remote-node), inside an ICMP echo from our gateway address to the
peer's. The peer's dataplane unpacks it like any packet and its stack answers, so nothing has
to run there, and a Cilium node answers as well. The answer comes by the tunnel of the peer,
cut in pieces once the peer knows that the way back is narrower: then each side finds the MTU of
its own direction, and before that the smaller of both.

`path_mtus` follows. A peer is measured when it appears, every `VERIFY_S`, and at once when a
router says "too big" about our packets. Such a message can be forged: it only makes us look.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping

import attrs
import structlog

from meshnet.agent import echo
from meshnet.logic.path_mtu import PathSearch, verification
from meshnet.model.addressing import Address
from meshnet.model.dataplane import Mode

VERIFY_S = 10.0
VERIFY_PEER_S = 0.02
"""A round of verification takes at least this long a peer: 150 packets a second at most."""
SILENT_S = 5.0
"""A peer that answered nothing is asked again after this."""
DOUBT_S = 1.0
"""Between two measurements of one peer, whatever routers say."""
TICK_S = 0.25
ATTEMPTS = 3
TRY_S = 0.4
"""Between two attempts; an answer counts until the last one is over."""
AT_ONCE = 32
"""Peers that are measured at the same time."""


@attrs.frozen(kw_only=True)
class PathPeer:
    """One peer as a probe must know it."""

    address: Address
    """Its outer address."""
    own_address: Address
    """Ours, of that family: the one it knows us by."""
    inner: tuple[Address, Address]
    """Our own address inside our PodCIDRs and its own inside of its: who asks, who answers."""
    mode: Mode = Mode.VXLAN


@attrs.define
class _Round:
    """The sizes asked of one peer, and those answered so far."""

    asked: tuple[int, ...]
    answered: set[int] = attrs.field(factory=set)
    complete: asyncio.Event = attrs.field(factory=asyncio.Event)

    def answer(self, size: int) -> None:
        self.answered.add(size)
        if size == self.asked[-1]:  # whatever is smaller fits, too
            self.complete.set()


class PathProber:
    """Keeps `path_mtus` true for the peers that `peers()` names; `changed` is told."""

    def __init__(
        self,
        peers: Callable[[], Iterable[PathPeer]],
        *,
        ceiling: int,
        changed: Callable[[], None],
    ) -> None:
        self._peers = peers
        self._ceiling = ceiling
        self._changed = changed
        self._id = secrets.randbelow(1 << 16)
        self._due: dict[Address, float] = {}
        self._measured: dict[Address, float] = {}
        self._hints: dict[Address, int] = {}
        self._busy: set[Address] = set()
        self._known: dict[Address, PathPeer] | None = None
        self._rounds: dict[bytes, tuple[_Round, int]] = {}
        """By the cookie in the probe: what it answers, and its size."""
        self._log = structlog.get_logger(prober="path")
        self.path_mtus: dict[Address, int] = {}

    async def run(self) -> None:
        """Never returns."""
        with contextlib.ExitStack() as stack:
            listeners = {v: stack.enter_context(echo.listener(v)) for v in (4, 6)}
            senders = {v: stack.enter_context(echo.Sender(v)) for v in (4, 6)}
            async with asyncio.TaskGroup() as group:
                for version, listener in listeners.items():
                    group.create_task(self._listen(version, listener))
                while True:
                    for peer in self._choose():
                        self._busy.add(peer.address)
                        group.create_task(self._measure(peer, senders))
                    await asyncio.sleep(TICK_S)

    def peers_changed(self) -> None:
        """`peers()` has another answer now."""
        self._known = None

    def _choose(self) -> list[PathPeer]:
        """Whose turn it is."""
        if self._known is None:
            self._known = {peer.address: peer for peer in self._peers()}
            self._forget(self._due.keys() - self._known.keys())
            self._due |= dict.fromkeys(self._known.keys() - self._due.keys(), 0.0)
        now = time.monotonic()
        due = [a for a, when in self._due.items() if when <= now and a not in self._busy]
        return [self._known[address] for address in due[: AT_ONCE - len(self._busy)]]

    def _forget(self, gone: Iterable[Address]) -> None:
        for address in gone:
            for table in (self._due, self._measured, self._hints, self.path_mtus):
                table.pop(address, None)

    async def _measure(self, peer: PathPeer, senders: Mapping[int, echo.Sender]) -> None:
        address = peer.address
        try:
            found = await self._search(peer, senders[address.version])
        finally:
            self._busy.discard(address)
        if address not in self._due:
            return  # it is no peer any more
        now = time.monotonic()
        hint = self._hints.pop(address, None)
        self._measured[address] = now
        interval = max(VERIFY_S, VERIFY_PEER_S * len(self._due)) if found else SILENT_S
        self._due[address] = now + interval * random.uniform(0.8, 1.2)
        if found and self.path_mtus.get(address, self._ceiling) != found:
            self._log.info("path MTU", peer=str(address), bytes=found, a_router_said=hint)
        if found and self.path_mtus.get(address) != found:
            self.path_mtus[address] = found
            self._changed()

    async def _search(self, peer: PathPeer, sender: echo.Sender) -> int | None:
        """The path's MTU; None: the peer answers nothing, so nothing is known of the path."""
        known = self.path_mtus.get(peer.address)
        hint = self._hints.get(peer.address, 0)
        if known and not hint:
            asked = verification(known, self._ceiling)
            if await self._ask(peer, sender, asked) == {s for s in asked if s <= known}:
                return known
        search = PathSearch(ceiling=self._ceiling)
        while search.found is None:
            asked = search.sizes((known or 0, (known or 0) + 1, hint, hint + 1))
            search = search.narrow(asked, await self._ask(peer, sender, asked))
            if not search.carried:
                return None
        return search.found

    async def _ask(self, peer: PathPeer, sender: echo.Sender, sizes: tuple[int, ...]) -> set[int]:
        """Those of the sizes that were answered; a smaller one than that counts as well."""
        asked = _Round(sizes)
        cookies = {secrets.token_bytes(echo.COOKIE_BYTES): size for size in sizes}
        self._rounds |= {cookie: (asked, size) for cookie, size in cookies.items()}
        try:
            for _ in range(ATTEMPTS):
                for cookie, size in cookies.items():
                    if size > max(asked.answered, default=0):
                        self._send(peer, sender, cookie, size)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asked.complete.wait(), TRY_S)
                    break
        finally:
            for cookie in cookies:
                del self._rounds[cookie]
        return {size for size in sizes if size <= max(asked.answered, default=0)}

    def _send(self, peer: PathPeer, sender: echo.Sender, cookie: bytes, size: int) -> None:
        with contextlib.suppress(OSError):  # no route, or more than the interface takes: silence
            sender.send(
                own=peer.own_address,
                peer=peer.address,
                inner=peer.inner,
                identifier=self._id,
                cookie=cookie,
                mode=peer.mode,
                size=size,
            )

    async def _listen(self, version: int, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            packet = await loop.sock_recv(listener, 1 << 16)
            heard = echo.read(version, packet, self._id)
            if isinstance(heard, echo.Answer) and heard.cookie in self._rounds:
                asked, size = self._rounds[heard.cookie]
                asked.answer(size)
            elif isinstance(heard, echo.TooBig):
                self._doubt(heard)

    def _doubt(self, said: echo.TooBig) -> None:
        """A router did not pass a packet of ours: look again, soon."""
        address = said.destination
        if address in self._due and said.mtu < self.path_mtus.get(address, self._ceiling):
            self._hints[address] = said.mtu
            soonest = self._measured.get(address, 0) + DOUBT_S
            self._due[address] = min(self._due[address], soonest)
