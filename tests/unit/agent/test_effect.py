"""`apply --wait`: who waits, who answers, and who is behind."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import attrs
import pytest

from meshnet.agent.effect import Effect, Progress
from meshnet.errors import Timeout
from meshnet.model.node import Node as MeshNode
from meshnet.registry import schema
from tests.support.node import Node, local_node

OTHER = MeshNode(name="east-2", cluster="east", cluster_id=1, addresses=(), gateways=(),
                 pod_cidrs=(), boot_id="")  # fmt: skip


@pytest.fixture
def effect(tmp_path: Path) -> Effect:
    node = Node(tmp_path)
    local = local_node()
    node.view.tables.nodes.items[schema.node("east", "east-2")] = OTHER
    return Effect(local, node.kv, node.session, node.view)


async def tell(effect: Effect, node: str, progress: Progress) -> None:
    await effect._kv.put(schema.ack(node), json.dumps(attrs.asdict(progress)).encode())


async def test_a_wait_ends_when_every_node_has_answered(effect: Effect) -> None:
    waiting = asyncio.create_task(effect.wait(7, timeout_s=5, identities=False))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert len((await effect._kv.list(schema.WAITS)).pairs) == 1
    await tell(effect, "east-2", Progress(manifests=6))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await tell(effect, "east-2", Progress(manifests=7))
    await waiting
    assert (await effect._kv.list(schema.WAITS)).pairs == ()


async def test_who_is_behind_is_named(effect: Effect) -> None:
    with pytest.raises(Timeout, match="not in effect yet on east-2"):
        await effect.wait(7, timeout_s=0.05, identities=False)


async def test_identities_are_waited_for_until_they_are_everywhere(effect: Effect) -> None:
    revision = await effect._kv.put(f"{schema.IPS}10.1.0.9", b"{}")
    await tell(effect, "east-2", Progress(manifests=7))
    waiting = asyncio.create_task(effect.wait(7, timeout_s=5, identities=True))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await tell(effect, "east-2", Progress(manifests=7, addresses=revision))
    await waiting


async def test_nothing_is_told_when_nobody_waits(effect: Effect) -> None:
    await effect.tell(Progress(manifests=3))
    assert await effect._kv.get(schema.ack("east-1")) is None
    effect._view.tables.waits.items["x"] = True
    await effect.tell(Progress(manifests=3))
    stored = await effect._kv.get(schema.ack("east-1"))
    assert stored is not None and json.loads(stored.value)["manifests"] == 3


async def test_what_settles_after_the_last_pass_is_overdue_until_it_is_told(effect: Effect) -> None:
    settled = False
    effect.settled = lambda: settled
    tables = effect._view.tables
    tables.manifests.revision = 7
    assert not effect.overdue, "nobody waits"
    tables.waits.items["x"] = True
    await effect.tell(effect.now())
    assert not effect.overdue, "a pass could tell no more"
    settled = True
    assert effect.overdue
    await effect.tell(effect.now())
    assert not effect.overdue
