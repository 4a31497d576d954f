"""Two stores in memory, one cluster each, and the mirror between them."""

from __future__ import annotations

import json

import attrs
import pytest

from meshnet.errors import Denied, NotPermitted
from meshnet.kvstore.api import KV, Delete, Put
from meshnet.kvstore.memory import MemoryKV
from meshnet.mesh.mirror import remove_mirror
from meshnet.model.remote import Remote
from meshnet.registry import schema
from tests.support.mesh import (
    WEB,
    Borrowed,
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
    shared_policy,
    state,
    status_when,
    until,
)

CACHE = schema.CACHES


class Clusters:
    """`west` is mirrored into `east`."""

    def __init__(self) -> None:
        self.east = MemoryKV()
        self.west = MemoryKV()
        self.opened = 0

    def open(self, remote: Remote) -> Borrowed:
        assert remote.name == "west"
        self.opened += 1
        return Borrowed(self.west)


@pytest.fixture
def clusters() -> Clusters:
    return Clusters()


async def test_everything_that_is_believed_is_copied_byte_for_byte(clusters: Clusters) -> None:
    exported = state(nodes=3, endpoints=50)
    await put_all(clusters.west, introduction() | exported)
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        status = await status_when(clusters.east, lambda status: status.ready)
        assert await contents(clusters.east, CACHE) == as_mirrored(exported)
    assert (status.nodes, status.endpoints, status.identities) == (3, 150, 1)
    assert (status.connected, status.error, status.reconnects, status.refused) == (True, None, 0, 0)


async def test_the_config_is_copied_as_cached_and_with_what_we_do_not_know(
    clusters: Clusters,
) -> None:
    config = {"id": 2, "capabilities": {"maxConnectedClusters": 255, "futureThing": {"a": 1}}}
    await clusters.west.put(schema.cluster_config("west"), json.dumps(config).encode())
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
        copy = await clusters.east.get(schema.cluster_config("west"))
    assert copy is not None
    assert json.loads(copy.value) == {
        "id": 2,
        "capabilities": {"maxConnectedClusters": 255, "futureThing": {"a": 1}, "cached": True},
    }


async def test_canaries_come_after_the_config_and_all_the_data(clusters: Clusters) -> None:
    await put_all(clusters.west, introduction() | state(nodes=2, endpoints=150))
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
        config = await clusters.east.get(schema.cluster_config("west"))
        data = (await clusters.east.list(CACHE)).pairs
        canaries = (await clusters.east.list(schema.canaries("west"))).pairs
    assert config is not None
    assert [pair.key for pair in canaries] == sorted(
        schema.synced("west", prefix) for prefix in schema.CACHE_CANARIED
    )
    assert config.mod_revision <= min(pair.mod_revision for pair in data)
    assert max(pair.mod_revision for pair in data) <= canaries[0].mod_revision


async def test_nothing_is_read_before_the_remote_announced_it_whole(clusters: Clusters) -> None:
    canary = schema.synced("west", schema.CANARIED[1])
    await put_all(clusters.west, introduction() | state(nodes=1, endpoints=1))
    await clusters.west.delete(canary)
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        waiting = await status_when(clusters.east, lambda status: status.connected)
        assert canary in str(waiting.error) and not waiting.ready
        assert await contents(clusters.east, CACHE) == {}
        await clusters.west.put(canary, b"now")
        await status_when(clusters.east, lambda status: status.ready)


async def test_puts_and_deletes_follow(clusters: Clusters) -> None:
    exported = state(nodes=1, endpoints=3)
    await put_all(clusters.west, introduction() | exported)
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
        gone, _ = ip_key(entry(1, 2))
        key, value = ip_key(entry(1, 99))
        await clusters.west.txn((), (Delete(gone), Put(key, value)))
        wanted = as_mirrored({k: v for k, v in exported.items() if k != gone} | {key: value})
        await until(clusters.east, CACHE, lambda found: found == wanted)
        await status_when(clusters.east, lambda status: status.last_event_at is not None)


async def test_only_what_differs_is_written_when_another_leader_takes_over(
    clusters: Clusters,
) -> None:
    exported = state(nodes=2, endpoints=20)
    await put_all(clusters.west, introduction() | exported)
    writer = await lead(clusters.east)
    async with mirroring(clusters.east, writer, clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
    before = {p.key: p.mod_revision for p in (await clusters.east.list("cilium/")).pairs}
    await clusters.east.revoke(writer.lease)
    gone, _ = ip_key(entry(2, 5))
    await clusters.west.delete(gone)

    async with mirroring(clusters.east, await lead(clusters.east, "east-2"), clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
        after = {p.key: p.mod_revision for p in (await clusters.east.list("cilium/")).pairs}
    del before[next(iter(as_mirrored({gone: b""})))]
    assert after == before, "no key was written again, and the one deleted meanwhile is gone"


async def test_a_lost_connection_keeps_the_copy_and_what_was_deleted_meanwhile_goes_later(
    clusters: Clusters,
) -> None:
    exported = state(nodes=2, endpoints=5)
    await put_all(clusters.west, introduction() | exported)
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
        clusters.west.disconnect("the link is cut")
        lost = await status_when(clusters.east, lambda status: not status.connected)
        assert not lost.ready and "the link is cut" in str(lost.error)
        assert await contents(clusters.east, CACHE) == as_mirrored(exported)

        clusters.west.reconnect()
        gone, _ = ip_key(entry(2, 3))
        await clusters.west.delete(gone)
        del exported[gone]
        await until(clusters.east, CACHE, lambda found: found == as_mirrored(exported))
        back = await status_when(clusters.east, lambda status: status.ready)
    assert back.reconnects == 1 and clusters.opened >= 2


async def test_keys_that_are_not_believed_are_skipped_and_told(clusters: Clusters) -> None:
    honest = state(nodes=1, endpoints=1)
    stranger = ip_key(attrs.evolve(entry(1, 9), host=entry(7, 9).host))
    ours = ip_key(entry(1, 9, cluster_id=1))
    thief = node_key(
        attrs.evolve(node(5), addresses=node(1, cluster="east", cluster_id=1).addresses)
    )
    crown = ip_key(entry(1, 10, identity=(1 << 16) + 300))
    junk = (schema.identity(WEB + 1), b"not labels")
    foreign = identity_key(WEB + 2, cluster="east")
    poison = dict([stranger, ours, thief, crown, junk, foreign])
    await put_all(clusters.west, introduction() | honest | poison)
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
        assert await contents(clusters.east, CACHE) == as_mirrored(honest)
        status = await status_when(clusters.east, lambda status: status.refused == 6)
    told = {refusal.key: refusal.reason for refusal in status.refusals}
    assert told.keys() == poison.keys()
    assert "172.20.2.7 is no address of a known node of west" in told[stranger[0]]
    assert "outside the PodCIDRs of west" in told[ours[0]]
    assert "belongs to node east-1 of this cluster" in told[thief[0]]
    assert "outside the range of cluster id 2" in told[crown[0]]


async def test_a_key_that_stops_being_believed_is_taken_out_of_the_copy(
    clusters: Clusters,
) -> None:
    exported = state(nodes=2, endpoints=2)
    await put_all(clusters.west, introduction() | exported)
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
        key, value = node_key(attrs.evolve(node(2), cluster_id=7))
        await clusters.west.put(key, value)
        left = {k: v for k, v in as_mirrored(exported).items() if "10.2.2." not in k}
        left = {k: v for k, v in left.items() if not k.endswith("west-2")}
        await until(clusters.east, CACHE, lambda found: found == left)


async def test_another_cluster_behind_the_same_name_is_an_error_one_can_read(
    clusters: Clusters,
) -> None:
    await put_all(clusters.west, introduction(cluster_id=9) | state(nodes=1, endpoints=1))
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        status = await status_when(clusters.east, lambda status: status.error is not None)
        assert await contents(clusters.east, CACHE) == {}
    assert "answers with cluster id 9, but joined with 2" in str(status.error)


async def test_a_cluster_that_cuts_identities_elsewhere_is_an_error_one_can_read(
    clusters: Clusters,
) -> None:
    config = {"id": 2, "capabilities": {"maxConnectedClusters": 511}}
    await put_all(clusters.west, introduction() | state(nodes=1, endpoints=1))
    await clusters.west.put(schema.cluster_config("west"), json.dumps(config).encode())
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        status = await status_when(clusters.east, lambda status: status.error is not None)
        assert await contents(clusters.east, CACHE) == {}
    assert "maxConnectedClusters is 255 here and 511 in cluster 'west'" in str(status.error)


async def test_keys_over_the_cap_are_left_out_and_let_in_when_there_is_room(
    clusters: Clusters,
) -> None:
    exported = state(nodes=1, endpoints=6)
    await put_all(clusters.west, introduction() | exported)
    writer = await lead(clusters.east)
    async with mirroring(clusters.east, writer, clusters.open, max_keys=4):
        await status_when(clusters.east, lambda status: status.ready)
        assert len(await contents(clusters.east, schema.cache_ips("west"))) == 4
        for last in (2, 3):
            key, _ = ip_key(entry(1, last))
            await clusters.west.delete(key)
            del exported[key]
        await until(clusters.east, CACHE, lambda found: found == as_mirrored(exported))


async def test_our_own_etcd_failing_for_a_while_loses_nothing(clusters: Clusters) -> None:
    exported = state(nodes=1, endpoints=2)
    await put_all(clusters.west, introduction() | exported)
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
        clusters.east.disconnect("restarting")
        key, value = ip_key(entry(1, 50))
        await clusters.west.put(key, value)
        await clusters.west.delete(ip_key(entry(1, 2))[0])
        clusters.east.reconnect()
        del exported[ip_key(entry(1, 2))[0]]
        wanted = as_mirrored(exported | {key: value})
        await until(clusters.east, CACHE, lambda found: found == wanted)


async def test_a_removed_remote_leaves_nothing_and_its_config_goes_first(
    clusters: Clusters,
) -> None:
    exported = state(nodes=2, endpoints=2) | dict([shared_policy()])
    await put_all(clusters.west, introduction() | exported)
    writer = await lead(clusters.east)
    async with mirroring(clusters.east, writer, clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
        assert await contents(clusters.east, schema.CACHE_MANIFESTS)
    start = await clusters.east.list("")
    await remove_mirror(writer, "west")

    assert (await contents(clusters.east, "")).keys() == {schema.LEADER}
    gone: list[str] = []
    async for batch in clusters.east.watch("", after=start.revision):
        gone += [event.key for event in batch.events]
        if len(gone) == len(start.pairs) - 1:
            break
    assert gone[0] == schema.cluster_config("west")
    assert all(key.startswith(schema.SYNCED) for key in gone[2:6])
    assert all(key.startswith((CACHE, schema.CACHE_MANIFESTS)) for key in gone[6:])


async def test_manifests_for_the_mesh_come_and_go_with_what_the_remote_says(
    clusters: Clusters,
) -> None:
    key, value = shared_policy()
    await put_all(clusters.west, introduction() | {key: value})
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        wanted = as_mirrored({key: value})
        await until(clusters.east, schema.CACHE_MANIFESTS, lambda found: found == wanted)
        await clusters.west.txn((), [Delete(key)])
        await until(clusters.east, schema.CACHE_MANIFESTS, lambda found: found == {})


class Older(Borrowed):
    """Through a gateway that refuses to list what is for the whole mesh."""

    def __init__(self, kv: KV, refusal: Denied) -> None:
        super().__init__(kv)
        self._refusal = refusal

    async def list(self, prefix: str) -> object:
        if prefix.startswith(schema.SHARED_MANIFESTS):
            raise self._refusal
        return await self._kv.list(prefix)


NOT_SHOWN = NotPermitted("the range is not exported to other clusters")


async def test_a_remote_whose_version_shows_no_manifests_is_mirrored_all_the_same(
    clusters: Clusters,
) -> None:
    exported = state(nodes=1, endpoints=1)
    await put_all(clusters.west, introduction() | exported | dict([shared_policy()]))

    def older(_: Remote) -> Older:
        return Older(clusters.west, NOT_SHOWN)

    async with mirroring(clusters.east, await lead(clusters.east), older):
        status = await status_when(clusters.east, lambda status: status.ready)
        assert status.reconnects == 0
        assert await contents(clusters.east, CACHE) == as_mirrored(exported)
        assert await contents(clusters.east, schema.CACHE_MANIFESTS) == {}


@pytest.mark.parametrize("refusal", [NOT_SHOWN, Denied("too many requests at once")])
async def test_manifests_that_a_gateway_does_not_show_stay_as_they_were_copied(
    clusters: Clusters, refusal: Denied
) -> None:
    shared = dict([shared_policy()])
    await put_all(clusters.west, introduction() | shared)
    async with mirroring(clusters.east, await lead(clusters.east), clusters.open):
        await status_when(clusters.east, lambda status: status.ready)
    assert await contents(clusters.east, schema.CACHE_MANIFESTS) == as_mirrored(shared)

    await clusters.east.delete(schema.LEADER)
    await put_all(clusters.west, late := state(nodes=1, endpoints=1))

    def older(_: Remote) -> Older:
        return Older(clusters.west, refusal)

    async with mirroring(clusters.east, await lead(clusters.east), older):
        if refusal is NOT_SHOWN:
            await until(clusters.east, CACHE, lambda found: found == as_mirrored(late))
            await status_when(clusters.east, lambda status: status.ready)
        else:
            refused = await status_when(clusters.east, lambda status: status.reconnects > 1)
            assert refused.error == str(refusal) and not refused.ready
        assert await contents(clusters.east, schema.CACHE_MANIFESTS) == as_mirrored(shared)
