"""Manifests in etcd: compare-and-swap, what changes, and nothing of what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from meshnet.agent.manifests import Action, Manifests, shared
from meshnet.agent.seen import Table
from meshnet.errors import ManifestRefused, NotFound, Refused
from meshnet.kvstore.api import Put
from meshnet.kvstore.memory import MemoryKV
from meshnet.manifests.kinds import read_manifest
from meshnet.model.manifest import Manifest, ManifestKey
from meshnet.registry import codec, schema
from tests.support.mesh import shared_policy


def namespace(name: str, **labels: str) -> Manifest:
    metadata: dict[str, Any] = {"name": name, "labels": labels}
    return read_manifest({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


@pytest.fixture
def manifests() -> Manifests:
    return Manifests(MemoryKV())


async def test_apply_creates_configures_and_leaves_alone(manifests: Manifests) -> None:
    shop, green = namespace("shop", team="a"), namespace("green")
    assert [c.action for c in await manifests.diff([shop])] == [Action.CREATED]
    assert await manifests.find("ns") == []
    created = await manifests.apply([shop, green])
    assert [change.action for change in created] == [Action.CREATED, Action.CREATED]
    assert await manifests.find("ns") == [green, shop]
    again = await manifests.apply([shop, namespace("green", team="b")])
    assert [change.action for change in again] == [Action.UNCHANGED, Action.CONFIGURED]
    assert again[0].revision == created[0].revision
    assert again[1].before == green.document


async def test_the_key_is_the_designs() -> None:
    kv = MemoryKV()
    await Manifests(kv).apply([namespace("shop")])
    assert [p.key for p in (await kv.list("")).pairs] == ["meshnet/v1/manifests/namespace//shop"]


async def test_a_lost_race_is_read_again_and_not_overwritten_unseen() -> None:
    kv = MemoryKV()
    other = namespace("shop", team="other")

    class Racing(MemoryKV):
        raced = False

        async def get(self, key: str) -> Any:
            pair = await kv.get(key)
            if not self.raced:
                self.raced = True
                await kv.put(key, codec.encode_manifest(other))
            return pair

        async def txn(self, compares: Any, then: Any) -> Any:
            assert all(isinstance(operation, Put) for operation in then)
            return await kv.txn(compares, then)

    (change,) = await Manifests(Racing()).apply([namespace("shop", team="mine")])
    assert change.action is Action.CONFIGURED
    assert change.before == other.document


async def test_delete_is_all_or_nothing_when_one_is_missing(manifests: Manifests) -> None:
    await manifests.apply([namespace("shop")])
    keys = [ManifestKey("Namespace", "", "shop"), ManifestKey("Namespace", "", "nowhere")]
    with pytest.raises(NotFound, match="Namespace nowhere"):
        await manifests.delete(keys)
    assert len(await manifests.find("ns")) == 1
    (gone,) = await manifests.delete(keys[:1])
    assert gone.action is Action.DELETED
    assert await manifests.find("ns") == []


async def test_get_of_what_is_not_there(manifests: Manifests) -> None:
    with pytest.raises(NotFound, match="no NetworkPolicy 'web' in namespace shop"):
        await manifests.find("netpol", "shop", "web")


async def test_what_is_of_another_cluster_is_shown_and_is_deleted_there() -> None:
    kv = MemoryKV()
    key, value = shared_policy()
    await kv.put(key.replace("/shared/", "/cache/"), value)
    await kv.put(f"{schema.cache_manifests('west')}networkpolicy/shop/broken", b"{")
    stored = Manifests(kv)
    (found,) = await stored.of_others("netpol", "shop")
    assert found.origin == "west"
    assert found.shown["metadata"]["annotations"]["meshnet.io/origin"] == "west"
    assert await stored.of_others("cnp") == []
    with pytest.raises(NotFound, match="NetworkPolicy shop/web is of cluster west: delete it"):
        await stored.delete([found.manifest.key])
    with pytest.raises(ManifestRefused, match="is of cluster west"):
        read_manifest(found.shown)


async def test_others_are_told_of_what_is_for_the_mesh_and_of_nothing_else() -> None:
    table = Table(schema.MANIFESTS, codec.decode_manifest)
    assert shared("west", table) is None, "before the first listing nothing would be deleted"
    policy = codec.decode_shared_manifest(*shared_policy()).manifest
    table.items = {codec.manifest_key(each.key): each for each in (policy, namespace("shop"))}
    table.synced = True
    assert shared("west", table) == {
        "meshnet/v1/shared/manifests/west/networkpolicy/shop/web": codec.encode_manifest(policy)
    }


async def test_no_more_are_for_the_mesh_than_other_clusters_take(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshnet.agent.manifests.MAX_MANIFESTS", 2)
    one, other, third = (
        codec.decode_shared_manifest(*shared_policy(name)).manifest for name in ("a", "b", "c")
    )
    await manifests.apply([one, other])
    await manifests.apply([one])
    with pytest.raises(Refused, match="3 manifests would be for the whole mesh: 2 at most"):
        await manifests.apply([third])
    assert len(await manifests.find("netpol")) == 2
    await manifests.apply([namespace("shop")])
