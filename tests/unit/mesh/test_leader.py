"""What the leader does while it leads, over stores in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import attrs
import pytest

from meshnet.kvstore.api import KV
from meshnet.kvstore.memory import MemoryKV
from meshnet.mesh.leader import Intervals, MeshLeader
from meshnet.mesh.leadership import Leadership
from meshnet.model.remote import Remote, RemoteState
from meshnet.registry import codec, schema
from tests.support.mesh import (
    EAST,
    WEST,
    Borrowed,
    as_mirrored,
    contents,
    entry,
    introduction,
    ip_key,
    node,
    node_key,
    put_all,
    state,
    status_when,
    until,
)

NORTH = attrs.evolve(WEST, name="north", id=3, pod_cidrs=())
STATE = state(nodes=2, endpoints=3)


class Mesh:
    """Cluster `east` with a leader, and the stores of its remotes by name."""

    def __init__(self) -> None:
        self.kv = MemoryKV()
        self.stores = {"west": MemoryKV(), "north": MemoryKV()}

    def open(self, remote: Remote) -> KV:
        return Borrowed(self.stores[remote.name])  # type: ignore[return-value]

    @contextlib.asynccontextmanager
    async def leading(self, name: str = "east-1", **intervals: float) -> AsyncIterator[None]:
        leader = MeshLeader(
            self.kv, EAST, self.open, intervals=Intervals(**{"publish_s": 0.05, **intervals})
        )
        task = asyncio.create_task(Leadership(self.kv, name, retry_s=0.01).run(leader.lead))
        try:
            yield
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def join(self, remote: Remote) -> None:
        await self.kv.put(schema.remote(remote.name), codec.encode_remote(remote))


@pytest.fixture
async def mesh() -> Mesh:
    mesh = Mesh()
    await put_all(mesh.stores["west"], introduction() | STATE)
    await put_all(mesh.stores["north"], introduction("north", 3))
    return mesh


async def test_the_cluster_introduces_itself_and_its_heart_beats(mesh: Mesh) -> None:
    async with mesh.leading(heartbeat_s=0.01):
        first = await until(mesh.kv, schema.HEARTBEAT, bool)
        await until(mesh.kv, schema.HEARTBEAT, lambda found: found != first)
        config = await mesh.kv.get(schema.cluster_config("east"))
        assert config is not None
        assert codec.decode_cluster_config(config.key, config.value).id == 1
        assert (await contents(mesh.kv, schema.canaries("east"))).keys() == {
            f"cilium/synced/east/cilium/state/{kind}/v1"
            for kind in ("nodes", "ip", "identities", "services")
        }


async def test_what_others_did_to_our_introduction_is_put_right(mesh: Mesh) -> None:
    async with mesh.leading(heartbeat_s=0.01):
        right = await until(mesh.kv, schema.cluster_config("east"), bool)
        await mesh.kv.put(schema.cluster_config("east"), b'{"id":9}')
        await until(mesh.kv, schema.cluster_config("east"), lambda found: found == right)


async def test_a_remote_is_mirrored_from_the_moment_it_is_committed(mesh: Mesh) -> None:
    async with mesh.leading():
        await mesh.join(attrs.evolve(WEST, state=RemoteState.PENDING))
        await mesh.join(NORTH)
        await status_when(mesh.kv, lambda status: status.ready, cluster="north")
        assert await contents(mesh.kv, schema.cache_nodes("west")) == {}
        await mesh.join(WEST)
        await status_when(mesh.kv, lambda status: status.ready)
        assert await contents(mesh.kv, schema.CACHES) == as_mirrored(STATE)


async def test_a_remote_that_was_left_goes_and_the_others_stay(mesh: Mesh) -> None:
    await mesh.join(WEST)
    await mesh.join(NORTH)
    async with mesh.leading():
        for cluster in ("west", "north"):
            await status_when(mesh.kv, lambda status: status.ready, cluster=cluster)
        await mesh.kv.delete(schema.remote("west"))
        await until(mesh.kv, schema.CACHES, lambda found: not found)
        assert await contents(mesh.kv, schema.cluster_config("west")) == {}
        assert await contents(mesh.kv, schema.canaries("west")) == {}
        assert await mesh.kv.get(schema.cluster_config("north")) is not None


async def test_a_remote_that_was_left_without_a_leader_goes_when_there_is_one(mesh: Mesh) -> None:
    await mesh.join(WEST)
    async with mesh.leading():
        await status_when(mesh.kv, lambda status: status.ready)
    await mesh.kv.delete(schema.remote("west"))
    assert await contents(mesh.kv, schema.CACHES)
    async with mesh.leading("east-2"):
        await until(mesh.kv, schema.CACHES, lambda found: not found)


async def test_a_remote_whose_record_is_poisoned_is_mirrored_as_before(mesh: Mesh) -> None:
    await mesh.join(WEST)
    async with mesh.leading():
        await status_when(mesh.kv, lambda status: status.ready)
        await mesh.kv.put(schema.remote("west"), b"not json")
        await mesh.join(NORTH)
        await status_when(mesh.kv, lambda status: status.ready, cluster="north")
        late = dict([ip_key(entry(1, 200))])
        await put_all(mesh.stores["west"], late)
        wanted = as_mirrored(STATE | late)
        await until(mesh.kv, schema.CACHES, lambda found: found == wanted)


async def test_a_remotes_status_does_not_outlive_the_leader(mesh: Mesh) -> None:
    await mesh.join(WEST)
    async with mesh.leading():
        await status_when(mesh.kv, lambda status: status.ready)
    assert await contents(mesh.kv, schema.MESH_STATUS) == {}
    assert await contents(mesh.kv, schema.CACHES) == as_mirrored(STATE)


async def test_a_node_of_a_remote_with_an_address_of_a_node_of_ours_is_taken_out_when_ours_comes(
    mesh: Mesh,
) -> None:
    await mesh.join(WEST)
    async with mesh.leading():
        await status_when(mesh.kv, lambda status: status.ready)
        ours = attrs.evolve(node(1, cluster="east", cluster_id=1), addresses=node(2).addresses)
        await put_all(mesh.kv, dict([node_key(ours)]))
        await until(
            mesh.kv,
            schema.cache_nodes("west"),
            lambda found: list(found) == ["cilium/cache/nodes/v1/west/west-1"],
        )
