"""Keys that die with their node, and come back with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from meshnet.errors import Unreachable
from meshnet.kvstore.memory import MemoryKV
from meshnet.registry.session import Session


class Clock:
    """Time that moves only when told, for the store and the session alike."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self._passed = asyncio.Event()

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        until = self.now + seconds
        self.waits.append(seconds)
        while self.now < until:
            await self._passed.wait()

    async def advance(self, seconds: float, step: float = 0.25) -> None:
        for _ in range(int(seconds / step)):
            self.now += step
            self._passed.set()
            self._passed = asyncio.Event()
            for _ in range(20):
                await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kv(clock: Clock) -> MemoryKV:
    return MemoryKV(clock)


@pytest.fixture
def session(kv: MemoryKV, clock: Clock) -> Session:
    return Session(kv, clock=clock, pause=clock.pause)


@contextlib.asynccontextmanager
async def running(session: Session) -> AsyncIterator[None]:
    task = asyncio.ensure_future(session.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def keys(kv: MemoryKV) -> dict[str, bytes]:
    return {pair.key: pair.value for pair in (await kv.list("")).pairs}


async def test_a_key_hangs_on_the_lease(kv: MemoryKV, session: Session) -> None:
    await session.put("s/a", b"1")
    found = await kv.get("s/a")
    assert found is not None and found.lease == session.lease != 0


async def test_a_session_kept_alive_keeps_its_keys(
    kv: MemoryKV, session: Session, clock: Clock
) -> None:
    await session.put("s/a", b"1")
    async with running(session):
        await clock.advance(120)
        assert await keys(kv) == {"s/a": b"1"}
        assert session.losses == 0 and session.held
        assert set(clock.waits) == {10.0}


async def test_keys_go_when_nobody_keeps_them_alive(
    kv: MemoryKV, session: Session, clock: Clock
) -> None:
    await session.put("s/a", b"1")
    await clock.advance(29)
    assert session.held
    await clock.advance(2)
    assert not session.held
    assert await keys(kv) == {}


async def test_a_lost_lease_brings_every_key_back_at_the_next_renewal(
    kv: MemoryKV, session: Session, clock: Clock
) -> None:
    async with running(session):
        for n in range(250):
            await session.put(f"s/{n}", str(n).encode())
        lost = session.lease
        await kv.revoke(lost)
        assert await keys(kv) == {}
        await session.renew()
        assert len(await keys(kv)) == 250
        assert session.losses == 1 and session.lease != lost


async def test_after_an_outage_all_is_back_within_a_second(
    kv: MemoryKV, session: Session, clock: Clock
) -> None:
    await session.put("s/a", b"1")
    await session.put("s/b", b"1")
    async with running(session):
        kv.disconnect("etcd at h:1 is unreachable: connection refused")
        await clock.advance(40)
        assert not session.held
        with pytest.raises(Unreachable, match="connection refused"):
            await session.put("s/c", b"2")
        with pytest.raises(Unreachable):
            await session.delete("s/b")
        kv.reconnect()
        assert await keys(kv) == {}
        await clock.advance(0.75)
        assert await keys(kv) == {"s/a": b"1", "s/c": b"2"}
        assert session.held


async def test_a_delete_that_did_not_arrive_is_made_good(
    kv: MemoryKV, session: Session, clock: Clock
) -> None:
    await session.put("s/a", b"1")
    async with running(session):
        await clock.advance(9)
        kv.disconnect("cut")
        with pytest.raises(Unreachable):
            await session.delete("s/a")
        await clock.advance(2)
        kv.reconnect()
        assert await keys(kv) == {"s/a": b"1"}
        await clock.advance(0.75)
        assert await keys(kv) == {}
        assert session.losses == 0


async def test_a_put_on_a_lost_lease_heals_the_session_itself(
    kv: MemoryKV, session: Session
) -> None:
    await session.put("s/a", b"1")
    await kv.revoke(session.lease)
    await session.put("s/b", b"2")
    assert await keys(kv) == {"s/a": b"1", "s/b": b"2"}
    assert session.keys == {"s/a", "s/b"}


async def test_the_latest_value_wins_among_puts_at_once(kv: MemoryKV, session: Session) -> None:
    await asyncio.gather(*(session.put("s/a", str(n).encode()) for n in range(20)))
    assert await keys(kv) == {"s/a": b"19"}


async def test_a_restored_backup_is_written_over(kv: MemoryKV, session: Session) -> None:
    backup = kv.backup()
    await session.put("s/a", b"1")
    kv.restore(backup)
    assert await keys(kv) == {}
    await session.reassert()
    assert await keys(kv) == {"s/a": b"1"}


async def test_a_revoked_session_leaves_nothing(kv: MemoryKV, session: Session) -> None:
    await session.put("s/a", b"1")
    await kv.put("other", b"")
    await session.revoke()
    assert await keys(kv) == {"other": b""}
    assert session.keys == frozenset() and not session.held


async def test_the_deadline_counts_from_before_the_request(kv: MemoryKV, clock: Clock) -> None:
    class Slow(MemoryKV):
        async def keep_alive(self, lease: int) -> int:
            left = await super().keep_alive(lease)
            clock.now += 3
            return left

    session = Session(Slow(clock), clock=clock, pause=clock.pause)
    await session.put("s/a", b"1")
    sent = clock.now
    await session.renew()
    assert session.deadline == sent + 30


async def test_a_session_that_ended_puts_no_key_whoever_still_asks() -> None:
    kv = MemoryKV()
    session = Session(kv)
    await session.put("meshnet/v1/a", b"1")
    await session.revoke()

    await session.put("meshnet/v1/b", b"2")

    assert not (await kv.list("meshnet/")).pairs
    assert not session.lease
