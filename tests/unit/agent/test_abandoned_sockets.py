"""Sockets that lost their backend: who is asked to end which, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from ipaddress import ip_address

import pytest

from meshnet.agent import abandoned_sockets
from meshnet.agent.abandoned_sockets import AbandonedSockets
from meshnet.dataplane.memory import MemoryDataplane
from meshnet.errors import DatapathError, NetlinkRefused, NotFound
from meshnet.model.dataplane import ServiceRow
from meshnet.model.service import BackendAddress, Frontend, Protocol, SocketPeer

FRONT = Frontend(ip_address("100.64.0.10"), 53, Protocol.UDP)
ONE, TWO = (BackendAddress(ip_address(f"10.1.0.{n}"), 5300, Protocol.UDP) for n in (1, 2))


class Kernel:
    """Which sockets are in which namespace; None is the node's own."""

    def __init__(self) -> None:
        self.sockets: dict[str | None, set[int]] = {None: {1}, "/run/netns/a": {2, 3}}
        self.refuses = False
        self.asked: list[str | None] = []

    async def destroy(self, netns: str | None, wanted: Mapping[int, BackendAddress]) -> set[int]:
        self.asked.append(netns)
        if self.refuses:
            raise NetlinkRefused("datagram sockets by sock_diag", 95, "Operation not supported")
        if netns not in self.sockets:
            raise NotFound(f"network namespace {netns} does not exist")
        ended = self.sockets[netns] & wanted.keys()
        self.sockets[netns] -= ended
        return ended


@contextlib.asynccontextmanager
async def running(dataplane: MemoryDataplane, kernel: Kernel) -> AsyncIterator[AbandonedSockets]:
    made = AbandonedSockets(
        dataplane, lambda: ["/run/netns/gone", "/run/netns/a", "/run/netns/b"], kernel.destroy
    )
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(abandoned_sockets, "RACE_S", 0.01)
    return Kernel()


@pytest.fixture
def dataplane() -> MemoryDataplane:
    made = MemoryDataplane()
    made.socket_peers = lambda: [SocketPeer(n, FRONT, TWO if n < 3 else ONE) for n in (1, 2, 3)]
    return made


async def test_sockets_are_ended_in_every_namespace_and_no_further(
    dataplane: MemoryDataplane, kernel: Kernel
) -> None:
    async with running(dataplane, kernel) as abandoned:
        abandoned.observe({FRONT: frozenset({ONE, TWO})})
        await asyncio.sleep(0.05)
        assert kernel.asked == []
        abandoned.observe({FRONT: frozenset({ONE})})
        await asyncio.sleep(0.05)
    assert kernel.sockets == {None: set(), "/run/netns/a": {3}}
    assert kernel.asked[:3] == [None, "/run/netns/gone", "/run/netns/a"]


async def test_one_that_becomes_visible_only_afterwards_is_ended_too(
    dataplane: MemoryDataplane, kernel: Kernel
) -> None:
    peers = dataplane.socket_peers()
    late = peers.pop(0)
    dataplane.socket_peers = lambda: peers
    async with running(dataplane, kernel) as abandoned:
        abandoned.observe({FRONT: frozenset({ONE, TWO})})
        abandoned.observe({FRONT: frozenset({ONE})})
        while kernel.sockets["/run/netns/a"] != {3}:
            await asyncio.sleep(0)
        peers.append(late)
        await asyncio.sleep(0.05)
    assert kernel.sockets[None] == set()


async def test_a_backend_that_left_while_no_agent_ran_is_noticed(
    dataplane: MemoryDataplane, kernel: Kernel
) -> None:
    dataplane.update_services({FRONT: ServiceRow(slots=(ONE, TWO))}, ())
    async with running(dataplane, kernel) as abandoned:
        abandoned.observe({FRONT: frozenset({ONE})})
        await asyncio.sleep(0.05)
    assert kernel.sockets == {None: set(), "/run/netns/a": {3}}


async def test_a_kernel_that_cannot_is_asked_once_and_the_agent_goes_on(
    dataplane: MemoryDataplane, kernel: Kernel
) -> None:
    kernel.refuses = True
    async with running(dataplane, kernel) as abandoned:
        abandoned.observe({FRONT: frozenset({ONE, TWO})})
        abandoned.observe({FRONT: frozenset({ONE})})
        await asyncio.sleep(0.05)
        assert kernel.asked == [None, None], "once a sweep"
        kernel.refuses = False
        abandoned.observe({FRONT: frozenset()})
        await asyncio.sleep(0.05)
    assert kernel.sockets["/run/netns/a"] == {2}


async def test_a_map_that_cannot_be_read_ends_nothing_and_the_next_sweep_goes_on(
    dataplane: MemoryDataplane, kernel: Kernel
) -> None:
    peers, asked = dataplane.socket_peers(), 0

    def read() -> list[SocketPeer]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise DatapathError("bpf(MAP_LOOKUP_BATCH) failed: Cannot allocate memory")
        return peers

    dataplane.socket_peers = read
    async with running(dataplane, kernel) as abandoned:
        abandoned.observe({FRONT: frozenset({ONE, TWO})})
        abandoned.observe({FRONT: frozenset({ONE})})
        async with asyncio.timeout(10):
            while kernel.sockets["/run/netns/a"] != {3}:
                await asyncio.sleep(0.01)
    assert kernel.sockets == {None: set(), "/run/netns/a": {3}}
