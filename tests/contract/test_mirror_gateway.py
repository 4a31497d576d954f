"""The mirror reads another cluster as it does in the field: through its gateway alone.

mirror of `west` ── mirror certificate ──▶ gateway of `east` ── node certificate ──▶ etcd
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import attrs
import pytest

from meshnet.gateway.filter import Exports
from meshnet.kvstore.api import Delete
from meshnet.kvstore.etcd import EtcdKV
from meshnet.kvstore.memory import MemoryKV
from meshnet.mesh.boundaries import Boundaries
from meshnet.mesh.mirror import Mirror
from meshnet.model.remote import Remote
from meshnet.registry import schema
from tests.support.gateway import Clusters, Scene, clusters_with_etcd, serving
from tests.support.mesh import (
    contents,
    entry,
    identity_key,
    introduction,
    ip_key,
    lead,
    node,
    node_key,
    put_all,
    shared_policy,
    status_when,
    until,
)

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]

EXPORTED = dict(
    [
        node_key(node(1, cluster="east", cluster_id=1)),
        identity_key((1 << 16) + 300, cluster="east"),
        *(ip_key(entry(1, last, cluster_id=1, identity=(1 << 16) + 300)) for last in range(2, 52)),
    ]
)
WANTED = {
    "cilium/cache/nodes/v1/east/": 1,
    "cilium/cache/identities/v1/east/id/": 1,
    "cilium/cache/ip/v1/east/": 50,
}


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    with clusters_with_etcd(tmp_path_factory.mktemp("clusters")) as made:
        yield made


@pytest.fixture
async def scene(clusters: Clusters) -> AsyncIterator[Scene]:
    async with serving(clusters) as made:
        gone = ("cilium/", schema.SHARED_MANIFESTS)
        await made.kv.txn((), [Delete(prefix, prefix=True) for prefix in gone])
        await put_all(made.kv, introduction("east", 1) | EXPORTED)
        yield made


@contextlib.asynccontextmanager
async def mirroring(scene: Scene) -> AsyncIterator[MemoryKV]:
    """The store of `west` while it mirrors `east`."""
    clusters = scene.clusters
    remote = attrs.evolve(clusters.east.remote(), gateways=(scene.endpoint,))

    def open_gateway(remote: Remote) -> EtcdKV:
        return EtcdKV(remote.gateways, clusters.west.mirror_tls(clusters.east), server="gateway")

    ours = MemoryKV()
    boundaries = Boundaries(clusters.west.cluster)
    boundaries.remotes({remote.name: remote})
    mirror = Mirror(
        remote, ours, await lead(ours, "west-1"), boundaries, open_gateway, publish_s=0.05
    )
    task = asyncio.create_task(mirror.run())
    try:
        yield ours
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_cluster_is_mirrored_through_its_gateway_and_changes_follow(scene: Scene) -> None:
    async with mirroring(scene) as ours:
        status = await status_when(ours, lambda status: status.ready, cluster="east")
        assert (status.nodes, status.identities, status.endpoints) == (1, 1, 50)
        for prefix, count in WANTED.items():
            assert len(await contents(ours, prefix)) == count
        key, value = ip_key(entry(1, 99, cluster_id=1, identity=(1 << 16) + 300))
        await scene.kv.put(key, value)
        await until(ours, schema.cache_ips("east"), lambda found: value in found.values())


async def test_a_gateway_that_does_not_know_us_any_more_is_an_error_one_can_read(
    scene: Scene,
) -> None:
    async with mirroring(scene) as ours:
        await status_when(ours, lambda status: status.ready, cluster="east")
        scene.gateway.set_remotes([])
        status = await status_when(ours, lambda status: not status.connected, cluster="east")
        assert status.error
        assert len(await contents(ours, schema.cache_ips("east"))) == 50
        scene.gateway.set_remotes([scene.clusters.west.remote()])
        await status_when(ours, lambda status: status.ready, cluster="east", timeout=20)


@attrs.frozen
class Older(Exports):
    """Of a version that knows no manifests for the whole mesh."""

    asked: asyncio.Event = attrs.field(factory=asyncio.Event, eq=False)

    def refusal(self, key: bytes, range_end: bytes) -> str | None:
        if key.startswith(schema.SHARED_MANIFESTS.encode()):
            self.asked.set()
            return "the range is not exported to other clusters"
        return super().refusal(key, range_end)


async def test_what_a_gateway_does_not_show_yet_stays_as_another_showed_it(scene: Scene) -> None:
    key, value = shared_policy(cluster="east")
    await scene.kv.put(key, value)
    copy = {schema.cache_manifests("east") + "networkpolicy/shop/web": value}
    async with mirroring(scene) as ours:
        await until(ours, schema.CACHE_MANIFESTS, lambda found: found == copy)
        scene.gateway.set_remotes([])
        await status_when(ours, lambda status: not status.connected, cluster="east")
        scene.gateway._exports = older = Older.of("east")
        scene.gateway.set_remotes([scene.clusters.west.remote()])
        async with asyncio.timeout(20):
            await older.asked.wait()
        key, value = ip_key(entry(1, 99, cluster_id=1, identity=(1 << 16) + 300))
        await scene.kv.put(key, value)
        await until(ours, schema.cache_ips("east"), lambda found: value in found.values())
        await status_when(ours, lambda status: status.ready, cluster="east")
        assert await contents(ours, schema.CACHE_MANIFESTS) == copy


async def test_two_leaders_in_a_row_fit_into_what_a_gateway_allows_a_remote(scene: Scene) -> None:
    """An old leader's connection may linger while the new one's is made already."""
    async with mirroring(scene) as first, mirroring(scene) as second:
        await status_when(first, lambda status: status.ready, cluster="east")
        await status_when(second, lambda status: status.ready, cluster="east")
