"""What only the store in memory can do: time, outages, refusals and backups on demand.

The contract it shares with etcd is in tests/contract/test_kvstore.py.
"""

from __future__ import annotations

import asyncio

import pytest

from meshnet.errors import Compacted, Denied, LeaseLost, Unreachable
from meshnet.kvstore.api import Deleted, KeyValue
from meshnet.kvstore.memory import MemoryKV


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_lease_ends_exactly_at_its_time() -> None:
    clock = Clock()
    kv = MemoryKV(clock)
    lease = await kv.grant(30)
    await kv.put("k", b"", lease=lease)
    clock.now = 29.9
    assert await kv.keep_alive(lease) == 30
    clock.now = 59.8
    assert await kv.get("k") is not None
    clock.now = 59.9
    assert await kv.get("k") is None
    with pytest.raises(LeaseLost, match=f"lease {lease:x} is gone: put its keys again"):
        await kv.keep_alive(lease)


async def test_a_watcher_hears_of_an_ended_lease() -> None:
    clock = Clock()
    kv = MemoryKV(clock)
    revision = await kv.put("k", b"", lease=await kv.grant(30))
    watch = kv.watch("k", after=revision)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    clock.now = 31
    kv.expire()
    assert (await waiting).events == (Deleted("k", revision + 1),)


async def test_an_outage_ends_watches_and_refuses_calls_until_it_is_over() -> None:
    kv = MemoryKV()
    start = await kv.put("k", b"1")
    watch = kv.watch("k", after=start)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    kv.disconnect("etcd at h:1 is unreachable: cut")
    for call in (waiting, kv.get("k"), kv.put("k", b""), kv.grant(5), kv.revision()):
        with pytest.raises(Unreachable, match="etcd at h:1 is unreachable: cut"):
            await call
    kv.reconnect()
    assert await kv.get("k") is not None


async def test_what_is_denied_is_denied_to_every_call() -> None:
    kv = MemoryKV()
    kv.deny("secret/")
    for call in (
        kv.get("secret/a"),
        kv.list("secret/"),
        kv.put("secret/a", b""),
        anext(kv.watch("secret/", after=1)),
    ):
        with pytest.raises(Denied, match="permission denied"):
            await call
    await kv.put("public/a", b"")


async def test_a_restored_backup_forgets_what_came_after_it() -> None:
    kv = MemoryKV()
    await kv.put("k", b"1")
    backup = kv.backup()
    later = await kv.put("k", b"2")
    kv.restore(backup)
    found = await kv.get("k")
    assert found == KeyValue("k", b"1", 2, 2)
    with pytest.raises(Compacted, match="is not of this store: list again"):
        await anext(kv.watch("k", after=later))


async def test_a_slow_reader_misses_nothing_that_happens_between_two_events() -> None:
    kv = MemoryKV()
    start = await kv.revision()
    watch = kv.watch("", after=start)
    await kv.put("a", b"")
    await kv.put("b", b"")
    assert (await anext(watch)).revision == start + 1
    await kv.put("c", b"")
    assert [(await anext(watch)).revision for _ in range(2)] == [start + 2, start + 3]


async def test_a_reader_too_slow_for_a_compaction_is_told() -> None:
    kv = MemoryKV()
    watch = kv.watch("", after=await kv.put("a", b""))
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    for _ in range(3):
        await kv.put("a", b"")
    kv.compact(await kv.revision())
    with pytest.raises(Compacted, match="was compacted away: list again"):
        await waiting
