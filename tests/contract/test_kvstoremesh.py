"""Cilium's kvstoremesh against our gateway: the very requests it was seen to send, in order.

Seen with Cilium 1.20-dev (facts: cilium-interop). It uses a certificate of `mesh access`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import etcd3.etcdrpc as pb
import grpc
import grpc.aio
import pytest

from meshnet.kvstore.api import Delete
from meshnet.mesh.heartbeat import Heartbeat
from meshnet.mesh.peering import access
from meshnet.model.addressing import parse_prefix
from meshnet.model.remote import EtcdAccess, Remote, RemoteKind, RemoteState
from meshnet.registry import codec, schema
from tests.support.enrolment import RunningCluster, cluster_with_etcd, running
from tests.support.impostor import impostor
from tests.support.mesh import entry, identity_key, introduction, ip_key, lead, put_all

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]

PAGE = 256
"""kvstoremesh's."""
KINDS = (
    "cilium/state/nodes/v1/east/",
    "cilium/state/services/v1/east/",
    "cilium/state/ip/v1/default/",
    "cilium/state/identities/v1/id/",
)
ENDPOINTS = 600
PINGS = (
    ("grpc.keepalive_time_ms", 300),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
"""A ping every 0.3 s where Cilium pings every 15 s: the short form of minutes."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with cluster_with_etcd(tmp_path_factory.mktemp("clusters"), "east", 1) as east:
        yield east


@pytest.fixture
async def east(bases: Any) -> AsyncIterator[RunningCluster]:
    """With a leader's keys and more addresses than one page has."""
    async with running(bases) as made:
        cilium = Remote(
            name="cil",
            id=7,
            mesh_ca="",
            pod_cidrs=(parse_prefix("10.7.0.0/16"),),
            gateways=("192.0.2.7:2379",),
            state=RemoteState.COMMITTED,
            kind=RemoteKind.CILIUM,
            access=EtcdAccess(ca="", cert="", key=""),
        )
        await made.kv.put(schema.remote("cil"), codec.encode_remote(cilium))
        writer = await lead(made.kv)
        await Heartbeat(made.kv, made.trusted.cluster).beat(writer)
        number = (1 << 16) + 300
        entries = (
            entry(1 + n // 200, 2 + n % 200, cluster_id=1, identity=number)
            for n in range(ENDPOINTS)
        )
        await put_all(
            made.kv, dict(map(ip_key, entries)) | dict([identity_key(number, cluster="east")])
        )
        yield made


@attrs.frozen
class KvstoreMesh:
    """What it keeps of one remote."""

    channel: Any
    seen: dict[str, bytes] = attrs.field(factory=dict)

    async def page(self, key: str, end: str, revision: int = 0) -> Any:
        request = pb.RangeRequest(
            key=key.encode(), range_end=end.encode(), limit=PAGE, revision=revision
        )
        return await pb.KVStub(self.channel).Range(request, timeout=5)

    async def list(self, prefix: str) -> int:
        """Every page of a prefix at the revision of the first; answers that revision."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        key, revision = prefix, 0
        while True:
            answer = await self.page(key, end, revision)
            revision = revision or answer.header.revision
            self.seen.update({kv.key.decode(): kv.value for kv in answer.kvs})
            if not answer.more:
                return revision
            key = answer.kvs[-1].key.decode() + "\0"


async def channel_of(east: RunningCluster, options: tuple[Any, ...] = ()) -> Any:
    given = await access(
        "cil",
        kv=east.kv,
        cluster=east.trusted.cluster,
        pki=east.trusted.pki,
        gateways=lambda _: (east.gateway,),
    )
    tls = given.access
    credentials = grpc.ssl_channel_credentials(tls.ca.encode(), tls.key.encode(), tls.cert.encode())
    channel = grpc.aio.secure_channel(given.endpoints[0], credentials, options)
    async with asyncio.timeout(10):
        while True:  # until the gateway has heard of the new certificate
            try:
                await KvstoreMesh(channel).page("cilium/.heartbeat", "")
                return channel
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            await asyncio.sleep(0.02)


async def test_kvstoremeshs_own_requests_from_a_cold_start_to_following_every_kind(
    east: RunningCluster,
) -> None:
    """Range [.heartbeat], a Watch with `hasleader`, Range of the cluster-config, canaries listed
    and watched, then each kind paged by 256 and watched from the next revision."""
    channel = await channel_of(east)
    mesh = KvstoreMesh(channel)
    watch = pb.WatchStub(channel).Watch(metadata=(("hasleader", "true"),))

    async def follow(prefix: str, revision: int) -> int:
        create = pb.WatchCreateRequest(
            key=prefix.encode(),
            range_end=(prefix[:-1] + chr(ord(prefix[-1]) + 1)).encode(),
            start_revision=revision,
        )
        await watch.write(pb.WatchRequest(create_request=create))
        answer = await watch.read()
        assert answer.created and not answer.canceled, answer.cancel_reason
        assert answer.header.cluster_id == store
        return int(answer.watch_id)

    heartbeat = await mesh.page("cilium/.heartbeat", "cilium/.heartbeatu")
    store = heartbeat.header.cluster_id
    assert heartbeat.count == 1 and store
    watches = {await follow("cilium/.heartbeat", heartbeat.header.revision + 1)}
    config = await pb.KVStub(channel).Range(pb.RangeRequest(key=b"cilium/cluster-config/east"))
    assert b'"id":1' in config.kvs[0].value and b'"syncedCanaries":true' in config.kvs[0].value
    revision = await mesh.list("cilium/synced/east/")
    watches.add(await follow("cilium/synced/east/", revision + 1))
    canaries = {key for key in mesh.seen if key.startswith("cilium/synced/east/")}
    assert canaries == {schema.synced("east", prefix) for prefix in schema.CANARIED}
    for prefix in KINDS:
        revision = await mesh.list(prefix)
        watches.add(await follow(prefix, revision + 1))
    assert len(watches) == 6
    assert sum(key.startswith("cilium/state/ip/") for key in mesh.seen) == ENDPOINTS

    key, value = ip_key(entry(9, 9, cluster_id=1, identity=(1 << 16) + 300))
    written = await east.kv.put(key, value)
    event = await watch.read()
    assert [(e.kv.key.decode(), e.kv.value, e.kv.mod_revision) for e in event.events] == [
        (key, value, written)
    ]
    await east.kv.txn((), (Delete(key),))
    event = await watch.read()
    assert [e.type for e in event.events] == [1]
    await channel.close()


async def test_pings_on_an_idle_connection_are_accepted(east: RunningCluster) -> None:
    channel = await channel_of(east, PINGS)
    watch = pb.WatchStub(channel).Watch()
    await watch.write(
        pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"cilium/.heartbeat"))
    )
    assert (await watch.read()).created

    await asyncio.sleep(3.0)
    await east.kv.put("cilium/.heartbeat", b"again")

    assert [e.kv.value for e in (await watch.read()).events] == [b"again"]
    await channel.close()


async def test_a_server_with_grpcs_own_limits_would_have_cut_those_pings() -> None:
    """The test above can fail: this is how the connection ends without the gateway's options."""
    async with impostor(introduction()) as server:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", PINGS)
        watch = pb.WatchStub(channel).Watch()
        create = pb.WatchCreateRequest(key=b"cilium/.heartbeat")
        await watch.write(pb.WatchRequest(create_request=create))
        assert (await watch.read()).created
        with pytest.raises(grpc.aio.AioRpcError, match=r"(?i)too.many.pings"):
            async with asyncio.timeout(20):
                await watch.read()
        await channel.close()
