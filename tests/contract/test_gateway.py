"""What the mesh gateway promises, over a real etcd and real mutual TLS.

remote `west` ── mirror certificate ──▶ gateway of `east` ── node certificate ──▶ etcd
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import etcd3.etcdrpc as pb
import grpc
import pytest

from meshnet.errors import Denied
from meshnet.gateway import server
from meshnet.gateway.relay import FIRST_REFUSED_ID
from meshnet.gateway.server import MAX_RANGES, MAX_STREAMS, MAX_WATCHES
from meshnet.kvstore.etcd import EtcdKV
from tests.support.gateway import (
    IPS,
    IPS_END,
    KEY,
    SECRET,
    Clusters,
    Scene,
    clusters_with_etcd,
    refusal,
    serving,
)
from tests.support.trust import RawClient, WatchCall

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]

PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    with clusters_with_etcd(tmp_path_factory.mktemp("clusters")) as made:
        yield made


@pytest.fixture
async def scene(clusters: Clusters) -> AsyncIterator[Scene]:
    async with serving(clusters) as made:
        yield made


@pytest.fixture
async def west(scene: Scene) -> AsyncIterator[RawClient]:
    async with scene.client(scene.clusters.west) as client:
        yield client


async def test_exported_keys_are_read_with_etcds_own_revisions(
    scene: Scene, west: RawClient
) -> None:
    answer = await west.range(IPS, IPS_END)

    own = await scene.kv.get(KEY.decode())
    assert own is not None
    assert [(kv.key, kv.value, kv.mod_revision) for kv in answer.kvs] == [
        (KEY, b"value of " + KEY, own.mod_revision)
    ]
    assert answer.header.cluster_id == (await scene.kv.list("cilium/")).store
    assert (await west.range(b"cilium/cluster-config/east")).count == 1


async def test_pages_are_read_as_cilium_asks_for_them(scene: Scene, west: RawClient) -> None:
    for number in range(5):
        await scene.kv.put(f"{IPS.decode()}10.1.9.{number}", b"x")
    first = await west.kv.Range(pb.RangeRequest(key=IPS, range_end=IPS_END, limit=4))
    rest = await west.kv.Range(
        pb.RangeRequest(
            key=first.kvs[-1].key + b"\0",
            range_end=IPS_END,
            limit=256,
            revision=first.header.revision,
        )
    )

    assert first.more and not rest.more
    assert len(first.kvs) + len(rest.kvs) == 6
    for number in range(5):
        await scene.kv.delete(f"{IPS.decode()}10.1.9.{number}")


async def test_watch_delivers_what_is_written(scene: Scene, west: RawClient) -> None:
    watch = west.watch()
    await watch.create(IPS, IPS_END)
    created = await watch.answer()
    revision = await scene.kv.put(KEY.decode(), b"new")

    event = await watch.answer()

    assert created.created and not created.canceled
    assert event.watch_id == created.watch_id
    assert [(e.kv.key, e.kv.value, e.kv.mod_revision) for e in event.events] == [
        (KEY, b"new", revision)
    ]


async def test_watch_can_be_cancelled_and_asked_for_progress(west: RawClient) -> None:
    watch = west.watch()
    await watch.create(IPS, IPS_END)
    created = await watch.answer()

    await watch.progress()
    progress = await watch.answer()
    await watch.cancel(created.watch_id)
    canceled = await watch.answer()

    assert not progress.events and progress.header.revision >= created.header.revision
    assert canceled.canceled and canceled.watch_id == created.watch_id


FORBIDDEN_CALLS: dict[str, Callable[[RawClient], Awaitable[Any]]] = {
    "put": lambda c: c.kv.Put(pb.PutRequest(key=KEY, value=b"evil")),
    "delete": lambda c: c.kv.DeleteRange(pb.DeleteRangeRequest(key=KEY)),
    "nested txn": lambda c: c.kv.Txn(
        pb.TxnRequest(
            success=[
                pb.RequestOp(
                    request_txn=pb.TxnRequest(
                        success=[pb.RequestOp(request_put=pb.PutRequest(key=KEY, value=b"evil"))]
                    )
                )
            ]
        )
    ),
    "compact": lambda c: c.kv.Compact(pb.CompactionRequest(revision=1)),
    "lease grant": lambda c: c.lease.LeaseGrant(pb.LeaseGrantRequest(TTL=60)),
    "lease revoke": lambda c: c.lease.LeaseRevoke(pb.LeaseRevokeRequest(ID=1)),
    "lease keys": lambda c: c.lease.LeaseTimeToLive(pb.LeaseTimeToLiveRequest(ID=1, keys=True)),
    "member list": lambda c: c.cluster.MemberList(pb.MemberListRequest()),
    "alarm": lambda c: c.maintenance.Alarm(pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE)),
    "defragment": lambda c: c.maintenance.Defragment(pb.DefragmentRequest()),
    "status": lambda c: c.maintenance.Status(pb.StatusRequest()),
    "auth disable": lambda c: c.auth.AuthDisable(pb.AuthDisableRequest()),
    "user list": lambda c: c.auth.UserList(pb.AuthUserListRequest()),
}


@pytest.mark.parametrize("name", FORBIDDEN_CALLS)
async def test_every_call_but_range_and_watch_is_unimplemented(
    name: str, scene: Scene, west: RawClient
) -> None:
    before = await scene.kv.revision()

    code, _ = await refusal(FORBIDDEN_CALLS[name](west))

    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert await scene.kv.revision() == before, "nothing was written"


@pytest.mark.parametrize(
    ("key", "end"),
    [
        (SECRET, b""),
        (b"meshnet/", b"meshnet0"),
        (b"\0", b"\0"),
        (KEY, b"\0"),
        (IPS, b"zzz"),
        (b"cilium/", b"cilium0"),
        (b"cilium/cluster-config/west", b""),
        (b"cilium/cache/ip/v1/west/10.2.0.1", b""),
        (b"cilium/state/identities/v1/value/k8s:a=b;/10.0.0.1", b""),
    ],
)
async def test_keys_that_are_not_exported_are_denied_to_range_and_watch(
    key: bytes, end: bytes, west: RawClient
) -> None:
    code, details = await refusal(west.range(key, end))
    watch = west.watch()
    await watch.create(key, end)
    answer = await watch.answer()

    assert code is PERMISSION_DENIED
    assert details.startswith("meshnet gateway: ") and "exported" in details
    assert answer.created and answer.canceled
    assert answer.cancel_reason == details


async def test_refused_watch_harms_no_other_on_its_stream(scene: Scene, west: RawClient) -> None:
    watch = west.watch()
    await watch.create(IPS, IPS_END)
    await watch.create(SECRET)
    await watch.create(KEY, b"\0")
    await watch.create(b"cilium/.heartbeat")
    first, refused, from_key, second = [await watch.answer() for _ in range(4)]

    await watch.cancel(refused.watch_id)
    await scene.kv.put(KEY.decode(), b"a")
    await scene.kv.put("cilium/.heartbeat", b"b")
    events = [await watch.answer() for _ in range(2)]

    assert [a.canceled for a in (first, refused, from_key, second)] == [False, True, True, False]
    assert len({a.watch_id for a in (first, refused, from_key, second)}) == 4
    assert min(refused.watch_id, from_key.watch_id) >= FIRST_REFUSED_ID
    assert refused.header.cluster_id == first.header.cluster_id
    assert [e.watch_id for e in events] == [first.watch_id, second.watch_id]


async def test_watch_from_a_compacted_revision_says_so(scene: Scene, west: RawClient) -> None:
    for _ in range(3):
        revision = await scene.kv.put(KEY.decode(), b"again")
    own = RawClient(scene.clusters.etcd.endpoint, scene.clusters.east.etcd_tls())
    await own.kv.Compact(pb.CompactionRequest(revision=revision))
    watch = west.watch()

    await watch.create(IPS, IPS_END, start_revision=1)
    created, canceled = await watch.answer(), await watch.answer()

    assert created.created
    assert canceled.canceled and canceled.compact_revision == revision
    await own.channel.close()


async def test_four_streams_and_sixteen_watches_are_the_limit(west: RawClient) -> None:
    streams: list[WatchCall] = []
    for _ in range(MAX_STREAMS):
        stream = west.watch()
        for _ in range(MAX_WATCHES // MAX_STREAMS):
            await stream.create(IPS, IPS_END)
            assert not (await stream.answer()).canceled
        streams.append(stream)

    code, details = await refusal(west.watch().answer())
    await streams[0].create(IPS, IPS_END)
    over = await streams[0].answer()
    await streams[1].cancel(0)
    await streams[1].answer()
    await streams[0].create(IPS, IPS_END)
    again = await streams[0].answer()

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details == "meshnet gateway: cluster 'west' has 4 streams open"
    assert over.cancel_reason == "meshnet gateway: cluster 'west' has 16 watches open"
    assert not again.canceled, "a cancelled watch makes room"


async def test_sixteen_unanswered_ranges_are_the_limit_of_one_remote_alone(
    scene: Scene, west: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "RANGE_TIMEOUT_S", 60.0)
    request = pb.RangeRequest(key=KEY)
    scene.gateway.set_remotes([scene.clusters.west.remote(), scene.clusters.north.remote()])
    async with scene.client(scene.clusters.north) as north:
        assert (await north.range(KEY)).count == 1
        scene.clusters.etcd.freeze()
        try:
            held = [west.kv.Range(request) for _ in range(MAX_RANGES)]
            async with asyncio.timeout(10):
                while scene.gateway.unanswered("west") < MAX_RANGES:
                    await asyncio.sleep(0.01)
            over = await refusal(west.range(KEY))
            other = north.kv.Range(request)
            async with asyncio.timeout(10):
                while not scene.gateway.unanswered("north"):
                    await asyncio.sleep(0.01)
        finally:
            scene.clusters.etcd.thaw()
        answers = await asyncio.gather(*held, other)

    assert over == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "meshnet gateway: cluster 'west' has 16 ranges unanswered",
    )
    assert [answer.count for answer in answers] == [1] * (MAX_RANGES + 1)
    assert (await west.range(KEY)).count == 1, "an answer makes room"


async def test_etcdkv_reads_and_follows_a_cluster_through_the_gateway(scene: Scene) -> None:
    kv = EtcdKV(
        [scene.endpoint],
        scene.clusters.west.mirror_tls(scene.clusters.east),
        server="gateway of east",
    )
    listing = await kv.list(IPS.decode())

    watch = kv.watch(IPS.decode(), after=listing.revision)
    async with asyncio.timeout(10):
        revision = await scene.kv.put(KEY.decode(), b"followed")
        batch = await anext(watch)

    assert [pair.key for pair in listing.pairs] == [KEY.decode()]
    assert batch.revision == revision
    assert await kv.revision() == revision
    with pytest.raises(Denied, match=r"^gateway of east at .* refused: meshnet gateway: 'meshnet/"):
        await kv.get("meshnet/v1/config")
    with pytest.raises(Denied, match=r"is not exported to other clusters$"):
        await anext(kv.watch("meshnet/", after=listing.revision))
    with pytest.raises(Denied):
        await kv.put(KEY.decode(), b"evil")
    await kv.close()
