"""The mirror between two real etcds, one a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest
import structlog

from meshnet.errors import LeaseLost
from meshnet.kvstore.api import Delete, Put
from meshnet.kvstore.etcd import EtcdKV
from meshnet.mesh.leader import MeshLeader
from meshnet.mesh.leadership import LEADER_TTL_S, Leadership
from meshnet.mesh.refusals import LASTING_S
from meshnet.model.remote import Remote
from meshnet.registry import codec, schema
from tests.support.etcd import EtcdProcess, etcd
from tests.support.mesh import (
    EAST,
    WEB,
    WEST,
    as_mirrored,
    contents,
    entry,
    identity_key,
    introduction,
    ip_key,
    lead,
    mirroring,
    node,
    node_key,
    put_all,
    state,
    status_when,
    until,
)

pytestmark = pytest.mark.etcd
CACHE = schema.CACHES


@attrs.define
class Clusters:
    """`west` is mirrored into `east`."""

    east_etcd: EtcdProcess
    west_etcd: EtcdProcess
    east: EtcdKV
    west: EtcdKV

    def open(self, remote: Remote) -> EtcdKV:
        assert remote.name == "west"
        return self.west_etcd.kv()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EtcdProcess, ...]]:
    directory: Path = tmp_path_factory.mktemp("clusters")
    with etcd(directory / "east") as east, etcd(directory / "west") as west:
        yield east, west


@pytest.fixture
async def clusters(processes: tuple[EtcdProcess, ...]) -> AsyncIterator[Clusters]:
    made = Clusters(*processes, *(process.kv() for process in processes))
    for kv in (made.east, made.west):
        await kv.txn((), (Delete("", prefix=True),))
    await put_all(made.west, introduction())
    yield made
    await made.east.close()
    await made.west.close()


async def test_a_thousand_keys_are_mirrored_equal_and_changes_follow_in_milliseconds(
    clusters: Clusters,
) -> None:
    exported = state(nodes=20, endpoints=49)
    assert len(exported) == 1001
    await put_all(clusters.west, exported)
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        status = await status_when(clusters.east, lambda status: status.ready)
        assert await contents(clusters.east, CACHE) == as_mirrored(exported)
        assert (status.nodes, status.endpoints, status.identities) == (20, 980, 1)

        lags = await _lags(clusters, range(60, 80))
        assert sorted(lags)[10] < 0.05, f"a change took {sorted(lags)} s"


async def _lags(clusters: Clusters, lasts: range) -> list[float]:
    """Seconds from a put in the remote's etcd until a watcher sees the copy in ours."""
    prefix = schema.cache_ips("west")
    listing = await clusters.east.list(prefix)
    lags = []
    async with contextlib.aclosing(clusters.east.watch(prefix, after=listing.revision)) as batches:
        seen = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.2)  # etcd brings a new watch up to date every 100 ms
        for last in lasts:
            start = time.perf_counter()
            await put_all(clusters.west, dict([ip_key(entry(1, last))]))
            await seen
            lags.append(time.perf_counter() - start)
            seen = asyncio.ensure_future(anext(batches))
        seen.cancel()
        await asyncio.wait((seen,))
    return lags


async def test_a_killed_remote_keeps_its_copy_and_what_it_lost_meanwhile_goes_on_return(
    clusters: Clusters,
) -> None:
    exported = state(nodes=4, endpoints=50)
    await put_all(clusters.west, exported)
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
        clusters.west_etcd.kill()
        lost = await status_when(clusters.east, lambda status: not status.connected)
        assert not lost.ready and lost.error
        assert await contents(clusters.east, CACHE) == as_mirrored(exported)

        # On another port, so that the mirror is away while things change.
        port, clusters.west_etcd.port = clusters.west_etcd.port, _other_port(clusters.west_etcd)
        clusters.west_etcd.start()
        unseen = clusters.west_etcd.kv()
        gone = [ip_key(entry(2, last))[0] for last in range(2, 40)]
        await unseen.txn((), [Delete(key) for key in gone])
        late = dict([ip_key(entry(4, 200))])
        await put_all(unseen, late)
        await unseen.close()
        clusters.west_etcd.kill()
        clusters.west_etcd.port = port
        clusters.west_etcd.start()

        wanted = {key: value for key, value in exported.items() if key not in gone} | late
        await until(clusters.east, CACHE, lambda found: found == as_mirrored(wanted), timeout=20)
        back = await status_when(clusters.east, lambda status: status.ready)
        assert back.reconnects >= 1


def _other_port(process: EtcdProcess) -> int:
    return EtcdProcess(process.directory).port


async def test_keys_that_are_not_believed_are_skipped_and_logged_once(clusters: Clusters) -> None:
    honest = state(nodes=2, endpoints=10)
    poison = dict(
        [
            ip_key(attrs.evolve(entry(1, 99), host=entry(9, 9).host)),
            ip_key(entry(1, 98, cluster_id=1)),
            node_key(attrs.evolve(node(3), cluster_id=1)),
            identity_key(WEB + 1, cluster="east"),
            (schema.node("west", "junk"), b"{"),
        ]
    )
    await put_all(clusters.west, honest | poison)
    with structlog.testing.capture_logs() as logs:
        async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
            status = await status_when(clusters.east, lambda status: status.refused > 0)
            # The remote writes them again: still the same fault, told already.
            await put_all(clusters.west, poison)
            await asyncio.sleep(LASTING_S + 0.2)
            assert await contents(clusters.east, CACHE) == as_mirrored(honest)
    assert {refusal.key for refusal in status.refusals} == poison.keys()
    told = [entry["key"] for entry in logs if entry["event"] == "key of a remote refused"]
    assert sorted(told) == sorted(poison)


async def test_another_leader_takes_over_within_15_s_and_the_frozen_one_changes_nothing(
    clusters: Clusters,
) -> None:
    exported = state(nodes=2, endpoints=10)
    await put_all(clusters.west, exported)
    await clusters.east.put(schema.remote("west"), codec.encode_remote(WEST))
    # A leader that was frozen: its lease is not kept alive, and it does not know.
    lease = await clusters.east.grant(LEADER_TTL_S)
    frozen = attrs.evolve(await lead(clusters.east, "east-1"), lease=lease)
    await clusters.east.put(schema.LEADER, b"east-1", lease=lease)
    await frozen.write([Put("written", b"in time")])

    successor = Leadership(clusters.east, "east-2")
    leader = MeshLeader(clusters.east, EAST, clusters.open)
    task = asyncio.create_task(successor.run(leader.lead))
    try:
        start = time.monotonic()
        await status_when(clusters.east, lambda status: status.ready, timeout=20)
        assert time.monotonic() - start < 15
        assert await contents(clusters.east, CACHE) == as_mirrored(exported)

        with pytest.raises(LeaseLost):
            await frozen.write([Put("written", b"too late"), Delete(CACHE, prefix=True)])
        assert (await contents(clusters.east, "written"))["written"] == b"in time"
        assert await contents(clusters.east, CACHE) == as_mirrored(exported)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await clusters.east.get(schema.LEADER) is None, "who steps down lets others lead"


async def test_our_own_etcd_killed_and_restarted_gets_the_rest(clusters: Clusters) -> None:
    exported = state(nodes=2, endpoints=10)
    await put_all(clusters.west, exported)
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
        clusters.east_etcd.kill()
        late = dict([ip_key(entry(1, 200))])
        await put_all(clusters.west, late)
        await asyncio.sleep(0.2)  # the mirror tries in vain
        await asyncio.to_thread(clusters.east_etcd.start)
        wanted = as_mirrored(exported | late)
        fresh = clusters.east_etcd.kv()
        await until(fresh, CACHE, lambda found: found == wanted, timeout=20)
        await fresh.close()
