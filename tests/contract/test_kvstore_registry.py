"""Follow, session and allocator against a real etcd that is killed, frozen, compacted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import etcd3.etcdrpc as pb
import grpc
import pytest

from meshnet.errors import PoisonedKey
from meshnet.kvstore.etcd import EtcdKV
from meshnet.model.cluster import Cluster, default_pod_cidrs
from meshnet.model.identity import LabelSet
from meshnet.registry import schema
from meshnet.registry.allocator import allocate_identity, allocate_pod_cidrs
from meshnet.registry.follow import Changes, Follower, Snapshot
from meshnet.registry.session import Session
from tests.support.etcd import EtcdProcess, etcd

pytestmark = pytest.mark.etcd


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdProcess]:
    with etcd(tmp_path / "etcd") as process:
        yield process


@pytest.fixture
async def kv(server: EtcdProcess) -> AsyncIterator[EtcdKV]:
    opened = server.kv(timeout_s=1.0, sign_of_life_s=2.0)
    yield opened
    await opened.close()


class Mirror:
    """The fold of a follow, as any reader would keep it."""

    def __init__(self, kv: EtcdKV, prefix: str) -> None:
        self.items: dict[str, bytes] = {}
        self.snapshots = 0
        self.poisoned: list[PoisonedKey] = []
        self.follower = Follower(kv, prefix, lambda _, value: value, self.poisoned.append)

    async def run(self) -> None:
        async for update in self.follower.updates():
            if isinstance(update, Snapshot):
                self.snapshots += 1
                self.items = dict(update.items)
            else:
                self._amend(update)

    def _amend(self, changes: Changes[bytes]) -> None:
        for key, value in changes.items.items():
            if value is None:
                self.items.pop(key, None)
            else:
                self.items[key] = value

    async def reaches(self, revision: int) -> None:
        async def reached() -> bool:
            return self.follower.status.revision >= revision

        await eventually(reached, within_s=15)


async def eventually(holds: Callable[[], Awaitable[bool]], *, within_s: float) -> None:
    """Ask every 20 ms until it holds."""
    deadline = time.monotonic() + within_s
    for _ in range(int(within_s / 0.02)):
        if await holds():
            return
        assert time.monotonic() < deadline, f"not within {within_s} s"
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {within_s} s")


@contextlib.asynccontextmanager
async def running(*coroutines: object) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]  # type: ignore[call-overload]
    try:
        yield
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def compact(server: EtcdProcess, revision: int) -> None:
    async with grpc.aio.insecure_channel(server.endpoint) as channel:
        await pb.KVStub(channel).Compact(pb.CompactionRequest(revision=revision))


async def contents(kv: EtcdKV, prefix: str) -> dict[str, bytes]:
    return {pair.key: pair.value for pair in (await kv.list(prefix)).pairs}


async def test_a_follow_goes_on_after_a_kill_without_listing_again(
    server: EtcdProcess, kv: EtcdKV
) -> None:
    mirror = Mirror(kv, "m/")
    await kv.put("m/a", b"1")
    async with running(mirror.run()):
        await mirror.reaches(2)
        server.kill()
        await asyncio.sleep(0.2)
        assert not mirror.follower.status.connected
        assert "is unreachable" in str(mirror.follower.status.error)
        await asyncio.to_thread(server.start)
        writer = server.kv()
        await mirror.reaches(await writer.put("m/b", b"2"))
        await writer.close()
    assert mirror.items == {"m/a": b"1", "m/b": b"2"}
    assert mirror.snapshots == 1
    assert mirror.follower.status.reconnects >= 1
    assert mirror.follower.status.connected


async def test_what_was_deleted_and_compacted_while_away_is_gone_after_the_relist(
    server: EtcdProcess, kv: EtcdKV
) -> None:
    """The reader cannot reach etcd (its port changes) while others delete and compact."""
    for n in range(600):
        await kv.put(f"m/{n:04}", b"a")
    mirror = Mirror(kv, "m/")
    async with running(mirror.run()):
        await mirror.reaches(601)
        assert len(mirror.items) == 600
        await asyncio.to_thread(server.kill)
        away = EtcdProcess(server.directory, peer_port=server.peer_port)
        try:
            await asyncio.to_thread(away.start)
            writer = away.kv()
            for n in range(300):
                await writer.delete(f"m/{n:04}")
            for n in range(550, 700):
                last = await writer.put(f"m/{n:04}", b"b")
            await compact(away, last)
            expected = await contents(writer, "m/")
            await writer.close()
        finally:
            await asyncio.to_thread(away.kill)
        await asyncio.to_thread(server.start)
        await mirror.reaches(last)
        assert mirror.items == expected
        assert len(expected) == 400
    assert mirror.snapshots == 2 and mirror.follower.status.relists == 1


async def test_a_follow_is_equal_after_freeze_kill_and_compaction_under_writes(
    server: EtcdProcess, kv: EtcdKV
) -> None:
    mirrors = [Mirror(server.kv(timeout_s=1.0, sign_of_life_s=2.0), "m/") for _ in range(3)]
    stop = asyncio.Event()

    async def write() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            key = f"m/{step * 7919 % 97}"
            with contextlib.suppress(Exception):
                await (kv.delete(key) if step % 3 == 0 else kv.put(key, str(step).encode()))
            await asyncio.sleep(0.002)

    async def disturb() -> None:
        await asyncio.sleep(0.5)
        server.freeze()
        await asyncio.sleep(3)
        server.thaw()
        await asyncio.sleep(0.5)
        await compact(server, await kv.revision())
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.start)
        await asyncio.sleep(1)
        stop.set()

    async with running(*(mirror.run() for mirror in mirrors)):
        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            group.create_task(write())
            group.create_task(disturb())
        last = await kv.put("m/last", b"")
        expected = await contents(kv, "m/")
        for mirror in mirrors:
            await mirror.reaches(last)
            assert mirror.items == expected
    assert len(expected) > 20


async def test_keys_are_back_within_a_second_after_a_freeze_outlived_the_lease(
    server: EtcdProcess, kv: EtcdKV
) -> None:
    """TTL 2 s, frozen for 4 s: etcd ends the lease the moment it thaws."""
    session = Session(kv, ttl_s=2, interval_s=0.6)
    keys = {"s/one": b"1", "s/two": b"2"}
    for key, value in keys.items():
        await session.put(key, value)
    first = session.lease
    async with running(session.run()):
        server.freeze()
        await asyncio.sleep(4)
        assert not session.held
        server.thaw()

        async def back() -> bool:
            return session.lease not in (0, first) and await contents(kv, "s/") == keys

        await eventually(back, within_s=1.5)
        assert session.losses == 1 and session.held
        await asyncio.sleep(3)
        assert len(await contents(kv, "s/")) == 2
    await session.revoke()
    assert await contents(kv, "s/") == {}


async def test_racing_nodes_get_one_number_for_the_same_labels(server: EtcdProcess) -> None:
    stores = [server.kv() for _ in range(8)]
    sets = [LabelSet.of({"k8s:app": f"a{n}"}) for n in range(40)]

    async def allocate_all(kv: EtcdKV) -> list[int]:
        return [await allocate_identity(kv, 3, labels) for labels in sets]

    numbers = await asyncio.gather(*(allocate_all(kv) for kv in stores))
    assert all(row == numbers[0] for row in numbers)
    assert len(set(numbers[0])) == len(sets)
    listing = await contents(stores[0], schema.IDENTITIES)
    assert listing == {
        schema.identity(number): str(labels).encode()
        for number, labels in zip(numbers[0], sets, strict=True)
    }
    for kv in stores:
        await kv.close()


async def test_racing_nodes_get_blocks_of_their_own(server: EtcdProcess) -> None:
    cluster = Cluster(name="c", id=7, pod_cidrs=default_pod_cidrs(7))
    stores = [server.kv() for _ in range(8)]

    async def join(kv: EtcdKV, worker: int) -> list[object]:
        blocks = []
        for n in range(4):
            for block in await allocate_pod_cidrs(kv, cluster, f"node-{worker}-{n}"):
                blocks.append(block.network)
        return blocks

    rows = await asyncio.gather(*(join(kv, worker) for worker, kv in enumerate(stores)))
    networks = [network for row in rows for network in row]
    assert len(networks) == len(set(networks)) == 8 * 4 * 2
    for kv in stores:
        await kv.close()
