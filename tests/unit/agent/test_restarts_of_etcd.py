"""What was begun and may not be begun twice is finished when etcd is started again meanwhile."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import attrs
import pytest

from meshnet.agent.departure import Departure
from meshnet.agent.effect import Effect, Progress
from meshnet.agent.manifests import Action, Manifests
from meshnet.agent.mesh_view import MeshView, Tables
from meshnet.agent.start import Foundation
from meshnet.enrolment.tokens import Tokens
from meshnet.errors import Conflict, Timeout, Unreachable
from meshnet.kvstore import patience
from meshnet.manifests.kinds import read_manifest
from meshnet.mesh import peering
from meshnet.mesh.join import leave
from meshnet.model.manifest import ManifestKey
from meshnet.model.remote import RemoteKind
from meshnet.model.token import TokenKind
from meshnet.registry import allocator, codec, schema
from meshnet.registry.store import get_remote, put_unique
from tests.support.lossy import LossyKV
from tests.support.node import CLUSTER, Node, local_node
from tests.support.trust import TrustedCluster

NAMES = ("blue", "green")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AGAIN_S", 0.001)


@pytest.fixture
def kv() -> LossyKV:
    return LossyKV()


async def applied(kv: LossyKV) -> tuple[Manifests, list[ManifestKey]]:
    manifests = Manifests(kv)
    found = [
        read_manifest({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for name in NAMES
    ]
    await manifests.apply(found)
    return manifests, [each.key for each in found]


@pytest.mark.parametrize("restarts", [1, 2])
async def test_every_manifest_is_deleted_and_its_revision_known(kv: LossyKV, restarts: int) -> None:
    manifests, keys = await applied(kv)
    before = await kv.revision()
    kv.restarts = restarts

    changes = await manifests.delete(keys)

    assert [change.action for change in changes] == [Action.DELETED] * 2
    assert [change.revision for change in changes] == [before + 1, before + 2], "of `--wait`"
    assert all(change.before for change in changes)
    assert await manifests.find("ns") == []


async def test_what_stays_away_is_not_repeated_from_outside(
    kv: LossyKV, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.02)
    monkeypatch.setattr("tests.support.lossy.AWAY", 1_000_000)
    manifests, keys = await applied(kv)
    kv.restarts = 1
    with pytest.raises(Unreachable, match="in part or whole: look before you ask") as raised:
        await manifests.delete(keys)
    assert not raised.value.own_etcd


async def test_before_anything_is_deleted_the_caller_may_ask_again(kv: LossyKV) -> None:
    manifests, keys = await applied(kv)
    kv.leave(1)
    with pytest.raises(Unreachable) as raised:
        await manifests.delete(keys)
    assert raised.value.own_etcd
    assert len(await manifests.find("ns")) == 2


@pytest.fixture
def effect(tmp_path: Path, kv: LossyKV) -> Effect:
    node = Node(tmp_path)
    local = local_node()
    node.view.tables.nodes.items[schema.node("east", "east-1")] = local.as_node()
    return Effect(local, kv, node.session, node.view)


@pytest.mark.parametrize("requests", range(1, 5))
async def test_a_wait_for_the_effect_goes_on(effect: Effect, kv: LossyKV, requests: int) -> None:
    kv.leave(requests)
    waiting = asyncio.create_task(effect.wait(7, timeout_s=5, identities=True))
    await asyncio.sleep(0.02)
    kv.leave(requests)
    await asyncio.sleep(0.02)
    told = json.dumps(attrs.asdict(Progress(manifests=7))).encode()
    await kv.put(schema.ack("east-1"), told)
    await waiting


async def test_a_wait_that_etcd_outlasts_says_that_it_was_applied(
    effect: Effect, kv: LossyKV, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.02)
    kv.leave(1_000_000)
    with pytest.raises(Timeout, match=r"^applied, but whether it is in effect is not known: etcd"):
        await effect.wait(7, timeout_s=5, identities=False)


async def test_a_renewed_access_keeps_the_one_in_use(tmp_path: Path, kv: LossyKV) -> None:
    east, cil = (TrustedCluster.create(tmp_path, *which) for which in (("east", 1), ("cil", 7)))
    remote = attrs.evolve(cil.remote(), kind=RemoteKind.CILIUM, mesh_ca="")
    await kv.put(schema.remote("cil"), codec.encode_remote(remote))

    async def access(*, renew: bool) -> str:
        given = await peering.access(
            "cil", kv=kv, cluster=east.cluster, pki=east.pki, renew=renew,
            gateways=lambda _: ("192.0.2.1:4243",),
        )  # fmt: skip
        return given.access.cert

    in_use = await access(renew=False)
    kv.restarts = 1
    fresh = await access(renew=True)

    stored = await get_remote(kv, "cil")
    assert stored is not None and stored.item.peer_certificates == (fresh, in_use)


async def test_a_unique_value_is_ours_when_it_is_there_and_anothers_is_a_conflict(
    kv: LossyKV,
) -> None:
    kv.restarts = 1
    await put_unique(kv, "k", b"ours", unchanged=0)
    assert [pair.value for pair in (await kv.list("")).pairs] == [b"ours"]
    with pytest.raises(Conflict):
        await put_unique(kv, "k", b"another", unchanged=0)


async def test_a_dead_node_is_forgotten(node: Node, kv: LossyKV) -> None:
    local = local_node()
    foundation = Foundation(
        netlink=node.kernel, kv=kv, local=local, dataplane=node.dataplane, vxlan_ifindex=3,
        etcd=None,
    )  # fmt: skip
    departure = Departure(
        foundation, MeshView(local, Tables.of(CLUSTER)), node.endpoints,
        None, None, stop=lambda: None,  # type: ignore[arg-type]
    )  # fmt: skip
    await allocator.allocate_pod_cidrs(kv, CLUSTER, "gone")
    kv.restarts = 2
    await departure.delete_node("gone")
    assert await allocator.pod_cidrs_of(kv, "gone") == ()


async def test_a_token_is_revoked_and_a_remote_left(tmp_path: Path, kv: LossyKV) -> None:
    east, west = (TrustedCluster.create(tmp_path, *which) for which in (("east", 1), ("west", 2)))
    tokens = Tokens(kv, east.cluster)
    _, record = await tokens.create(
        TokenKind.NODE, ttl_s=60, mesh_ca=east.signer.mesh.certificate, signers=("h:4244",)
    )
    await kv.put(schema.remote("west"), codec.encode_remote(west.remote()))
    kv.restarts = 1
    await tokens.revoke(record.id)
    kv.restarts = 1
    await leave("west", kv=kv)
    assert (await kv.list("")).pairs == ()
