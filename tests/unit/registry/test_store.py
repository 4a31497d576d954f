"""Single items, written only over what was read."""

from __future__ import annotations

import attrs
import pytest

from meshnet.errors import Conflict, NotFound, PoisonedKey
from meshnet.kvstore.memory import MemoryKV
from meshnet.model.cluster import Cluster, default_pod_cidrs
from meshnet.model.remote import Remote
from meshnet.registry import codec, schema, store

CLUSTER = Cluster(name="west", id=1, pod_cidrs=default_pod_cidrs(1))
REMOTE = Remote(name="east", id=2, mesh_ca="", pod_cidrs=default_pod_cidrs(2), gateways=("h:1",))


async def test_the_cluster_is_made_once_and_changed_only_by_who_read_it() -> None:
    kv = MemoryKV()
    with pytest.raises(NotFound, match="meshnet/v1/config does not exist: no cluster was made"):
        await store.get_cluster(kv)
    await store.put_cluster(kv, CLUSTER)
    with pytest.raises(Conflict, match="meshnet/v1/config was changed by somebody else"):
        await store.put_cluster(kv, CLUSTER)
    read = await store.get_cluster(kv)
    assert read.item == CLUSTER
    changed = attrs.evolve(CLUSTER, masquerade=False)
    await store.put_cluster(kv, changed, unchanged=read.mod_revision)
    with pytest.raises(Conflict, match="read it again"):
        await store.put_cluster(kv, CLUSTER, unchanged=read.mod_revision)
    assert (await store.get_cluster(kv)).item == changed


async def test_a_poisoned_item_is_handed_over_and_the_rest_listed() -> None:
    kv = MemoryKV()
    await kv.put(schema.remote("bad"), b"{}")
    await kv.put(schema.remote("east"), codec.encode_remote(REMOTE))
    poisoned: list[PoisonedKey] = []
    (listed,) = await store.list_remotes(kv, poisoned.append)
    assert listed.item == REMOTE
    assert [error.key for error in poisoned] == [schema.remote("bad")]
    with pytest.raises(PoisonedKey):
        await store.list_remotes(kv)


async def test_what_is_not_there_is_none() -> None:
    kv = MemoryKV()
    assert await store.get_remote(kv, "east") is None
    assert await store.get_node(kv, "west", "n1") is None
