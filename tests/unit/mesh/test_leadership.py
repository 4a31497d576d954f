"""One leader at a time, and nothing written by one that was."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from meshnet.errors import LeaseLost
from meshnet.kvstore.api import Created, Delete, Put, Unchanged
from meshnet.kvstore.memory import MemoryKV
from meshnet.mesh.leadership import MAX_TXN_BYTES, FencedWriter, Leadership
from meshnet.registry import schema
from tests.support.mesh import contents, lead, until


@contextlib.asynccontextmanager
async def candidate(
    kv: MemoryKV, node: str, *, ttl_s: int = 10
) -> AsyncIterator[asyncio.Task[None]]:
    """A node that writes `led/<node>` as its first act as leader, then leads on."""

    async def work(writer: FencedWriter) -> None:
        await writer.write([Put(f"led/{node}", b"", writer.lease)])
        await asyncio.Event().wait()

    leadership = Leadership(kv, node, ttl_s=ttl_s, retry_s=0.01)
    task = asyncio.create_task(leadership.run(work))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_second_candidate_waits_and_takes_over_when_the_leader_steps_down() -> None:
    kv = MemoryKV()
    async with candidate(kv, "a"):
        await until(kv, "led/", lambda found: "led/a" in found)
        async with candidate(kv, "b"):
            await until(kv, schema.LEADER, lambda found: found == {schema.LEADER: b"a"})
            assert await contents(kv, "led/") == {"led/a": b""}
            await kv.delete(schema.LEADER)
            await until(kv, "led/", lambda found: "led/b" in found)


async def test_a_cancelled_leader_leaves_no_key_behind() -> None:
    kv = MemoryKV()
    async with candidate(kv, "a"):
        await until(kv, "led/", bool)
    assert await contents(kv, "") == {}


async def test_a_leader_whose_lease_went_stops_its_work_and_leads_again() -> None:
    kv = MemoryKV()
    async with candidate(kv, "a", ttl_s=1):
        await until(kv, "led/", bool)
        first = await kv.get(schema.LEADER)
        assert first is not None
        await kv.revoke(first.lease)
        await until(kv, "led/", bool)
        second = await kv.get(schema.LEADER)
        assert second is not None and second.create_revision > first.create_revision


async def test_an_outage_ends_the_term_and_the_next_one_follows_it() -> None:
    kv = MemoryKV()
    async with candidate(kv, "a", ttl_s=1) as task:
        await until(kv, "led/", bool)
        kv.disconnect("etcd is down")
        await asyncio.sleep(0)
        kv.reconnect()
        await until(kv, "led/", bool)
        assert not task.done()


async def test_a_fault_in_the_leaders_work_is_not_swallowed() -> None:
    async def work(writer: FencedWriter) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await Leadership(MemoryKV(), "a").run(work)
    assert caught.group_contains(ZeroDivisionError)


async def test_a_thawed_old_leader_changes_nothing() -> None:
    kv = MemoryKV()
    old = await lead(kv, "a")
    await kv.revoke(old.lease)
    new = await lead(kv, "b")
    await new.write([Put("x", b"new")])

    with pytest.raises(LeaseLost):
        await old.write([Put("x", b"old"), Put("y", b"old")])
    with pytest.raises(LeaseLost):
        await old.write([Delete("x")])
    assert await contents(kv, "") == {schema.LEADER: b"b", "x": b"new"}


async def test_a_leader_tells_a_failed_compare_from_a_lost_term() -> None:
    kv = MemoryKV()
    writer = await lead(kv)
    assert await writer.write_if((Created("x"),), (Put("x", b"1"),))
    assert not await writer.write_if((Unchanged("x", 1),), (Put("x", b"2"),))
    assert (await contents(kv, "x"))["x"] == b"1"


async def test_long_and_heavy_writes_are_split_and_kept_in_order() -> None:
    kv = MemoryKV()
    writer = await lead(kv)
    heavy = bytes(MAX_TXN_BYTES // 2 + 1)
    await writer.write([Put(f"light/{number:03}", b"") for number in range(250)])
    await writer.write([Put("heavy/a", heavy), Put("heavy/b", heavy)])

    light = (await kv.list("light/")).pairs
    assert len(light) == 250
    assert len({pair.mod_revision for pair in light}) == 3
    assert [p.mod_revision for p in light] == sorted(p.mod_revision for p in light)
    one, other = (await kv.list("heavy/")).pairs
    assert one.mod_revision < other.mod_revision
