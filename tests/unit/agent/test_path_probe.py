"""The prober over sockets that are paths of a known width."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from meshnet.agent import echo, path_probe
from meshnet.agent.path_probe import PathPeer, PathProber
from meshnet.model.addressing import Address

PEER = PathPeer(
    address=ip_address("192.0.2.2"),
    own_address=ip_address("192.0.2.1"),
    inner=(ip_address("10.1.0.1"), ip_address("10.2.0.1")),
)


class Wire:
    """Paths by outer address; what is sent and fits is answered at once."""

    def __init__(self) -> None:
        self.mtu: dict[Address, int] = {PEER.address: 1500}
        self.sent: list[int] = []
        self.ears: dict[int, socket.socket] = {}

    def listener(self, version: int) -> socket.socket:
        ear, self.ears[version] = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ear.setblocking(False)
        return ear

    def say(self, message: bytes) -> None:
        self.ears[4].send(b"\x45" + bytes(19) + message)

    def sender(self, version: int) -> Any:
        return contextlib.nullcontext(self)

    def send(self, *, peer: Address, identifier: int, cookie: bytes, size: int, **_: Any) -> None:
        self.sent.append(size)
        if size <= self.mtu.get(peer, 0):
            self.say(struct.pack("!BBHHH", 0, 0, 0, identifier, 0) + cookie)


class World:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.peers = [PEER]
        self.changes = asyncio.Event()
        self.prober = PathProber(lambda: self.peers, ceiling=1500, changed=self.changes.set)

    @property
    def mtu(self) -> int | None:
        return self.prober.path_mtus.get(PEER.address)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.005)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    made = Wire()
    monkeypatch.setattr(echo, "listener", made.listener)
    monkeypatch.setattr(echo, "Sender", made.sender)
    for name, value in (("TICK_S", 0.01), ("TRY_S", 0.02), ("SILENT_S", 0.02), ("DOUBT_S", 0.0)):
        monkeypatch.setattr(path_probe, name, value)
    yield made
    for ear in made.ears.values():
        ear.close()


@contextlib.asynccontextmanager
async def running(wire: Wire) -> Any:
    world = World(wire)
    task = asyncio.create_task(world.prober.run())
    try:
        yield world
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("mtu", [1500, 1400, 1399, 1281])
async def test_a_new_peers_path_is_measured_to_the_byte(wire: Wire, mtu: int) -> None:
    wire.mtu[PEER.address] = mtu
    async with running(wire) as world:
        await world.until(lambda: world.mtu is not None)
        assert world.mtu == mtu
        assert world.changes.is_set()


async def test_a_path_that_changes_is_followed_both_ways(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_probe, "VERIFY_S", 0.01)
    async with running(wire) as world:
        for mtu in (1500, 1400, 1401, 1300, 1500):
            wire.mtu[PEER.address] = mtu
            await world.until(lambda m=mtu: world.mtu == m)


async def test_a_peer_that_falls_silent_keeps_what_is_known_of_its_path(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_probe, "VERIFY_S", 0.01)
    wire.mtu[PEER.address] = 1400
    async with running(wire) as world:
        await world.until(lambda: world.mtu == 1400)
        wire.mtu[PEER.address] = 0
        before = len(wire.sent)
        await world.until(lambda: len(wire.sent) > before + 60)
        assert world.mtu == 1400


async def test_a_routers_word_makes_it_look_at_once_and_is_not_believed(wire: Wire) -> None:
    """Without it the next look would be ten seconds away."""
    async with running(wire) as world:
        await world.until(lambda: world.mtu == 1500)
        quote = b"\x45" + bytes(15) + PEER.address.packed + bytes(8)
        before = len(wire.sent)
        world.wire.say(struct.pack("!BBHHH", 3, 4, 0, 0, 1300) + quote)
        await world.until(lambda: len(wire.sent) > before)
        assert 1300 in wire.sent[before:], "what it said is tried"
        await world.until(lambda: not world.prober._busy)
        assert world.mtu == 1500

        wire.mtu[PEER.address] = 1333
        world.wire.say(struct.pack("!BBHHH", 3, 4, 0, 0, 1333) + quote)
        await world.until(lambda: world.mtu == 1333)


async def test_a_peer_that_is_gone_is_forgotten(wire: Wire) -> None:
    async with running(wire) as world:
        await world.until(lambda: world.mtu == 1500)
        world.peers.clear()
        world.prober.peers_changed()
        await world.until(lambda: world.mtu is None)
