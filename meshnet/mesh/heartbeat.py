"""What a cluster says of itself: that it lives, who it is, and that its state is whole.

Other clusters wait for the cluster-config and the canaries before they read, and take a
heartbeat that stands still for 120 s for a cluster without a leader (Cilium does both).
"""

from __future__ import annotations

import asyncio
import datetime

from meshnet.errors import Unreachable
from meshnet.kvstore.api import KV, Operation, Put
from meshnet.mesh.leadership import FencedWriter
from meshnet.model.cluster import Cluster, ClusterConfig
from meshnet.registry import codec, schema

HEARTBEAT_S = 20.0


class Heartbeat:
    """Beats, and puts back what of the cluster's introduction is missing or altered."""

    def __init__(self, kv: KV, cluster: Cluster, *, interval_s: float = HEARTBEAT_S) -> None:
        self._kv = kv
        self._cluster = cluster
        self._interval_s = interval_s

    async def run(self, writer: FencedWriter) -> None:
        """For ever. Raises LeaseLost when this node leads no more."""
        while True:
            try:
                await self.beat(writer)
            except Unreachable:
                # The lease's keeper decides when that is too long; the next beat may do.
                await asyncio.sleep(self._interval_s / 20)
                continue
            await asyncio.sleep(self._interval_s)

    async def beat(self, writer: FencedWriter) -> None:
        """Once. Our agents write all four prefixes as they go, so their state is always whole
        and its canaries need no waiting."""
        now = datetime.datetime.now(datetime.UTC).isoformat().encode()
        name = self._cluster.name
        config = schema.cluster_config(name)
        introduction = codec.encode_cluster_config(ClusterConfig(id=self._cluster.id))
        known = await self._kv.get(config)
        there = {pair.key for pair in (await self._kv.list(schema.canaries(name))).pairs}
        operations: list[Operation] = [Put(schema.HEARTBEAT, now)]
        if known is None or known.value != introduction:
            operations.append(Put(config, introduction))
        canaries = (schema.synced(name, prefix) for prefix in schema.CANARIED)
        operations += [Put(canary, now) for canary in canaries if canary not in there]
        await writer.write(operations)
