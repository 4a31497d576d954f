"""A follow's fold equals a fresh listing, whatever befalls the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.errors import Denied, PoisonedKey
from meshnet.kvstore.api import Delete, Put
from meshnet.kvstore.memory import MemoryKV
from meshnet.registry.follow import Changes, Follower, Snapshot, follow

Updates = AsyncGenerator[Snapshot[int] | Changes[int], None]


def number(key: str, value: bytes) -> int:
    if not value.isdigit():
        raise PoisonedKey(key, f"expected a number, got {value!r}")
    return int(value)


class Reader:
    """A follow of `n/` whose waits are counted and not waited."""

    def __init__(self, kv: MemoryKV) -> None:
        self.kv = kv
        self.poisoned: list[str] = []
        self.pauses: list[float] = []
        self.follower = Follower(
            kv, "n/", number, lambda error: self.poisoned.append(str(error)), pause=self._pause
        )
        self.updates = self.follower.updates()
        self.items: dict[str, int] = {}
        self.revision = 0

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.kv.reconnect()

    async def next(self) -> Snapshot[int] | Changes[int]:
        update = await asyncio.wait_for(anext(self.updates), 5)
        if isinstance(update, Snapshot):
            self.items = dict(update.items)
        else:
            assert update.revision > self.revision, "a change is told once"
            for key, item in update.items.items():
                if item is None:
                    self.items.pop(key, None)
                else:
                    self.items[key] = item
        self.revision = update.revision
        return update

    async def catch_up(self, revision: int) -> None:
        while self.follower.status.revision < revision:
            await self.next()


@pytest.fixture
def kv() -> MemoryKV:
    return MemoryKV()


async def test_a_snapshot_comes_first_then_whole_revisions(kv: MemoryKV) -> None:
    await kv.put("n/a", b"1")
    reader = Reader(kv)
    assert await reader.next() == Snapshot(2, {"n/a": 1})
    await kv.txn([], [Put("n/b", b"2"), Put("other", b""), Delete("n/a")])
    assert await reader.next() == Changes(3, {"n/b": 2, "n/a": None})


async def test_an_empty_prefix_gives_an_empty_snapshot(kv: MemoryKV) -> None:
    updates: Updates = follow(kv, "n/", number, lambda error: None)
    assert await anext(updates) == Snapshot(1, {})
    await updates.aclose()


async def test_compaction_costs_a_snapshot_and_no_deletion(kv: MemoryKV) -> None:
    reader = Reader(kv)
    await kv.put("n/a", b"1")
    await reader.next()
    kv.disconnect("cut")
    kv.reconnect()
    await kv.delete("n/a")
    last = await kv.put("n/b", b"2")
    kv.compact(last)
    assert await reader.next() == Snapshot(last, {"n/b": 2})
    assert reader.follower.status.relists == 1


async def test_a_cut_connection_is_resumed_without_a_snapshot(kv: MemoryKV) -> None:
    reader = Reader(kv)
    await kv.put("n/a", b"1")
    await reader.next()
    await kv.put("n/a", b"2")
    await reader.next()
    waiting = asyncio.ensure_future(reader.next())
    await asyncio.sleep(0)
    kv.disconnect("etcd at h:1 is unreachable: cut")
    assert isinstance(await asyncio.wait_for(_put_when_back(kv, waiting), 5), Changes)
    assert reader.follower.status.reconnects == 1
    assert reader.follower.status.relists == 0
    assert len(reader.pauses) == 1


async def _put_when_back(
    kv: MemoryKV, waiting: asyncio.Future[Snapshot[int] | Changes[int]]
) -> Snapshot[int] | Changes[int]:
    for _ in range(100):
        await asyncio.sleep(0)
    await kv.put("n/b", b"2")
    return await waiting


async def test_waits_grow_and_are_never_in_step() -> None:
    kv = MemoryKV()
    kv.disconnect("etcd at h:1 is unreachable: connection refused")
    pauses: list[float] = []
    follower: Follower[int]

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert follower.status.error == "etcd at h:1 is unreachable: connection refused"
        if len(pauses) == 12:
            kv.reconnect()

    follower = Follower(kv, "n/", number, lambda error: None, pause=pause)
    assert isinstance(await anext(follower.updates()), Snapshot)
    assert 0.05 <= pauses[0] <= 0.1 and 1.5 <= pauses[-1] <= 3.0
    assert len(set(pauses)) == 12
    assert follower.status.connected and follower.status.error is None


async def test_a_restored_backup_is_read_anew(kv: MemoryKV) -> None:
    reader = Reader(kv)
    await kv.put("n/a", b"1")
    backup = kv.backup()
    await kv.put("n/b", b"2")
    await kv.put("n/c", b"3")
    await reader.next()
    kv.restore(backup)
    assert await reader.next() == Snapshot(2, {"n/a": 1})


async def test_a_poisoned_key_is_told_once_and_the_rest_goes_on(kv: MemoryKV) -> None:
    reader = Reader(kv)
    await kv.put("n/bad", b"x")
    await kv.put("n/good", b"1")
    assert await reader.next() == Snapshot(3, {"n/good": 1})
    kv.compact(await kv.put("elsewhere", b""))
    kv.disconnect("cut")
    kv.reconnect()
    await kv.put("n/good", b"2")
    await reader.catch_up(5)
    assert reader.poisoned == ["n/bad: expected a number, got b'x'"]
    await kv.put("n/bad", b"y")
    assert (await reader.next()).items == {"n/bad": None}
    assert len(reader.poisoned) == 2
    await kv.put("n/bad", b"7")
    assert (await reader.next()).items == {"n/bad": 7}


async def test_a_key_that_turns_bad_counts_as_gone(kv: MemoryKV) -> None:
    reader = Reader(kv)
    await kv.put("n/a", b"1")
    await reader.next()
    await kv.put("n/a", b"x")
    assert await reader.next() == Changes(3, {"n/a": None})


async def test_a_refusal_is_the_callers_to_decide(kv: MemoryKV) -> None:
    kv.deny("n/")
    with pytest.raises(Denied, match="n/: permission denied"):
        await Reader(kv).next()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "delete", "poison", "compact", "cut", "read"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_fold_equals_a_listing_after_any_history(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        kv = MemoryKV()
        reader = Reader(kv)
        await kv.put("n/first", b"0")
        for count, (step, n) in enumerate(steps):
            match step:
                case "put":
                    await kv.put(f"n/{n}", str(count).encode())
                case "poison":
                    await kv.put(f"n/{n}", b"x")
                case "delete":
                    await kv.delete(f"n/{n}")
                case "compact":
                    kv.compact(await kv.revision())
                case "cut":
                    kv.disconnect("cut")
                    kv.reconnect()
                case "read":
                    await reader.catch_up(min(await kv.revision(), count))
        await reader.catch_up(await kv.put("n/last", b"9"))
        listing = await kv.list("n/")
        expected = {pair.key: int(pair.value) for pair in listing.pairs if pair.value.isdigit()}
        assert reader.items == expected
        await reader.updates.aclose()

    asyncio.run(play())
