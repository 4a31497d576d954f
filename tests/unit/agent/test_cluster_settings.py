"""The cluster's settings are followed while the agent runs."""

from __future__ import annotations

import asyncio

import attrs

from meshnet.agent.cluster_settings import ClusterSettings
from meshnet.agent.seen import Table
from meshnet.kvstore.memory import MemoryKV
from meshnet.registry import codec, schema
from meshnet.registry.store import put_cluster
from tests.support.mesh import EAST


async def test_another_lifetime_is_told_at_once_and_the_same_is_not() -> None:
    kv = MemoryKV()
    await put_cluster(kv, EAST, unchanged=0)
    table = Table(schema.CONFIG, codec.decode_cluster)
    settings = ClusterSettings(kv, lambda: table.items.get(schema.CONFIG, EAST))
    told: asyncio.Queue[float] = asyncio.Queue()
    settings.changed = lambda: told.put_nowait(settings.lifetime().total_seconds())
    running = asyncio.create_task(table.follow(kv, settings.refresh))
    try:
        async with asyncio.timeout(10):
            await settings.set("certificate_lifetime", "2m")
            assert await told.get() == 120
            await settings.set("certificate_lifetime", "2m")
            await settings.set("certificate_lifetime", "3m")
            assert await told.get() == 180
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert attrs.evolve(EAST, certificate_lifetime_s=180) == settings.cluster
    assert told.empty()
