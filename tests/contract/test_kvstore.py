"""What every KV promises, run over memory and over a real etcd."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import etcd3.etcdrpc as pb
import grpc
import pytest

from meshnet.errors import Compacted, Denied, LeaseLost
from meshnet.kvstore.api import KV, Batch, Created, Delete, Deleted, Put, Unchanged, ValueIs
from meshnet.kvstore.memory import MemoryKV
from tests.support.etcd import EtcdProcess, etcd

Compact = Callable[[int], Awaitable[None]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdProcess]:
    with etcd(tmp_path_factory.mktemp("etcd")) as process:
        yield process


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[tuple[KV, Compact]]:
    """An empty store, and how an administrator compacts it."""
    if request.param == "memory":
        memory = MemoryKV()

        async def compact_memory(revision: int) -> None:
            memory.compact(revision)

        yield memory, compact_memory
        return
    process: EtcdProcess = request.getfixturevalue("server")
    kv = process.kv()

    async def compact_etcd(revision: int) -> None:
        async with grpc.aio.insecure_channel(process.endpoint) as channel:
            await pb.KVStub(channel).Compact(pb.CompactionRequest(revision=revision))

    await kv.txn((), (Delete("", prefix=True),))
    yield kv, compact_etcd
    await kv.close()


@pytest.fixture
def kv(store: tuple[KV, Compact]) -> KV:
    return store[0]


async def take(kv: KV, prefix: str, after: int, count: int) -> list[Batch]:
    """The next `count` batches, or a timeout."""
    batches: list[Batch] = []
    async with asyncio.timeout(10), contextlib.aclosing(kv.watch(prefix, after=after)) as watch:
        async for batch in watch:
            batches.append(batch)
            if len(batches) == count:
                break
    return batches


async def test_a_key_holds_what_was_put_last(kv: KV) -> None:
    assert await kv.get("a") is None
    first = await kv.put("a", b"1")
    second = await kv.put("a", b"2")
    found = await kv.get("a")
    assert found is not None
    assert (found.value, found.create_revision, found.mod_revision) == (b"2", first, second)
    assert await kv.delete("a")
    assert not await kv.delete("a")
    assert await kv.get("a") is None


async def test_a_listing_is_sorted_and_ends_at_its_prefix(kv: KV) -> None:
    for key in ("n/b", "n/a", "n0", "m/z", "n/a/x", "n"):
        await kv.put(key, b"")
    listing = await kv.list("n/")
    assert [pair.key for pair in listing.pairs] == ["n/a", "n/a/x", "n/b"]
    assert listing.revision == await kv.revision()
    assert [pair.key for pair in (await kv.list("n")).pairs] == ["n"]


async def test_created_lets_exactly_one_writer_through(kv: KV) -> None:
    async def claim(owner: int) -> bool:
        result = await kv.txn([Created("one")], [Put("one", str(owner).encode())])
        return result.succeeded

    won = await asyncio.gather(*(claim(owner) for owner in range(8)))
    assert sum(won) == 1
    found = await kv.get("one")
    assert found is not None and found.value == str(won.index(True)).encode()


async def test_a_transaction_is_one_revision_or_nothing(kv: KV) -> None:
    before = await kv.put("x", b"1")
    refused = await kv.txn([ValueIs("x", b"2")], [Put("y", b""), Delete("x")])
    assert not refused.succeeded
    assert await kv.get("y") is None
    done = await kv.txn([ValueIs("x", b"1")], [Put("y", b""), Delete("x"), Put("z", b"")])
    assert done.succeeded and done.revision == before + 1
    assert [pair.mod_revision for pair in (await kv.list("")).pairs] == [done.revision] * 2


async def test_compares_speak_of_the_right_revision(kv: KV) -> None:
    created = await kv.put("k", b"1")
    changed = await kv.put("k", b"2")
    for compare, expected in [
        (Created("k", created), True),
        (Created("k", changed), False),
        (Created("k"), False),
        (Created("absent"), True),
        (Unchanged("k", changed), True),
        (Unchanged("k", created), False),
        (Unchanged("absent", 0), True),
        (ValueIs("k", b"2"), True),
        (ValueIs("absent", b""), False),
    ]:
        assert (await kv.txn([compare], [])).succeeded is expected, compare


async def test_a_prefix_is_deleted_whole_and_no_neighbour(kv: KV) -> None:
    for key in ("p/a", "p/b", "p0", "p"):
        await kv.put(key, b"")
    await kv.txn([], [Delete("p/", prefix=True)])
    assert [pair.key for pair in (await kv.list("")).pairs] == ["p", "p0"]


async def test_a_key_twice_in_a_transaction_is_denied(kv: KV) -> None:
    with pytest.raises(Denied, match="duplicate key given in txn request"):
        await kv.txn([], [Put("k", b"1"), Put("k", b"2")])


async def test_more_operations_than_allowed_are_denied(kv: KV) -> None:
    with pytest.raises(Denied, match="101 operations in one transaction: 100 at most"):
        await kv.txn([], [Put(f"k{n}", b"") for n in range(101)])
    assert (await kv.txn([], [Put(f"k{n}", b"") for n in range(100)])).succeeded


async def test_revoking_a_lease_takes_its_keys_and_no_others(kv: KV) -> None:
    lease = await kv.grant(30)
    await kv.put("leased", b"", lease=lease)
    await kv.put("free", b"")
    assert await kv.keep_alive(lease) == 30
    found = await kv.get("leased")
    assert found is not None and found.lease == lease
    await kv.revoke(lease)
    assert [pair.key for pair in (await kv.list("")).pairs] == ["free"]
    await kv.revoke(lease)


async def test_a_lost_lease_is_told_at_every_use(kv: KV) -> None:
    lease = await kv.grant(30)
    await kv.revoke(lease)
    with pytest.raises(LeaseLost, match="is gone: put its keys again under a new one"):
        await kv.put("k", b"", lease=lease)
    with pytest.raises(LeaseLost, match="is gone"):
        await kv.txn([], [Put("k", b"", lease)])
    with pytest.raises(LeaseLost, match="is gone"):
        await kv.keep_alive(lease)
    assert await kv.get("k") is None


async def test_a_lease_ends_by_itself(kv: KV) -> None:
    lease = await kv.grant(1)
    revision = await kv.put("k", b"", lease=lease)
    (batch,) = await take(kv, "k", revision, 1)
    assert batch.events == (Deleted("k", batch.revision),)
    with pytest.raises(LeaseLost):
        await kv.keep_alive(lease)


async def test_a_put_without_its_lease_sets_the_key_free(kv: KV) -> None:
    lease = await kv.grant(30)
    await kv.put("k", b"1", lease=lease)
    await kv.put("k", b"2")
    await kv.revoke(lease)
    assert await kv.get("k") is not None


async def test_a_watch_gives_whole_revisions_in_order(kv: KV) -> None:
    start = await kv.put("w/start", b"")
    await kv.txn([], [Put("w/a", b"1"), Put("elsewhere", b""), Put("w/b", b"1")])
    await kv.put("elsewhere", b"2")
    await kv.txn([], [Delete("w/a"), Put("w/c", b"1")])
    one, two = await take(kv, "w/", start, 2)
    assert [event.key for event in one.events] == ["w/a", "w/b"]
    assert one.revision == start + 1
    assert sorted(event.key for event in two.events) == ["w/a", "w/c"]
    assert Deleted("w/a", two.revision) in two.events
    assert two.revision == start + 3


async def test_a_watch_sees_what_comes_later(kv: KV) -> None:
    start = await kv.revision()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(take(kv, "w/", start, 3))
        await asyncio.sleep(0.05)
        for value in (b"1", b"2", b"3"):
            await kv.put("w/k", value)
    values = [event.value for batch in watching.result() for event in batch.events]  # type: ignore[union-attr]  # puts
    assert values == [b"1", b"2", b"3"]


async def test_many_watches_at_once_each_get_their_own(kv: KV) -> None:
    start = await kv.revision()
    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(take(kv, f"w/{n}/", start, 20)) for n in range(10)]
        for step in range(20):
            for n in range(10):
                await kv.put(f"w/{n}/k", f"{n}-{step}".encode())
    for n, task in enumerate(watching):
        got = [event.value for batch in task.result() for event in batch.events]  # type: ignore[union-attr]  # puts
        assert got == [f"{n}-{step}".encode() for step in range(20)]


async def test_a_compacted_revision_cannot_be_watched(store: tuple[KV, Compact]) -> None:
    kv, compact = store
    old = await kv.put("c/k", b"1")
    await kv.put("c/k", b"2")
    last = await kv.put("c/k", b"3")
    await compact(last)
    with pytest.raises(Compacted, match="compacted away: list again"):
        await take(kv, "c/", old, 1)
    await kv.put("c/k", b"4")
    (batch,) = await take(kv, "c/", last, 1)
    assert batch.revision == last + 1


async def test_a_deletion_at_the_revision_of_a_compaction_is_not_lost(
    store: tuple[KV, Compact],
) -> None:
    kv, compact = store
    listed = await kv.put("c/k", b"1")
    await kv.delete("c/k")
    await compact(listed + 1)
    with pytest.raises(Compacted):
        await take(kv, "c/", listed, 1)


async def test_a_revision_of_another_store_cannot_be_watched(kv: KV) -> None:
    listing = await kv.list("")
    with pytest.raises(Compacted, match="list again"):
        await anext(kv.watch("", after=listing.revision, store=listing.store + 1))
    with pytest.raises(Compacted, match="list again"):
        await anext(kv.watch("", after=listing.revision + 1000))
