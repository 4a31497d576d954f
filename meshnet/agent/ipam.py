"""`meshnet ipam check`: the allocations in etcd against the nodes and endpoints that use them."""

from __future__ import annotations

from functools import partial

import structlog

from meshnet.errors import PoisonedKey
from meshnet.kvstore.api import KV, Delete, Unchanged
from meshnet.logic.ipam_check import Announced, Finding, check
from meshnet.model.cluster import Cluster
from meshnet.registry import codec, schema
from meshnet.registry.store import list_items


class Ipam:
    """Reads etcd itself, not what this agent remembers of it."""

    def __init__(self, kv: KV, cluster: Cluster) -> None:
        self._kv = kv
        self._cluster = cluster
        self._log = structlog.get_logger()

    async def check(self) -> list[Finding]:
        own = self._cluster
        skip = self._skip
        blocks = await list_items(
            self._kv, schema.POD_CIDR_ALLOCATIONS, codec.decode_pod_cidr, skip
        )
        decode = partial(codec.decode_node, cluster_id=own.id)
        nodes = await list_items(self._kv, schema.nodes(own.name), decode, skip)
        return check(
            own.pod_cidrs,
            [block.item for block in blocks],
            {node.item.name: node.item.pod_cidrs for node in nodes},
            await self._announced(),
        )

    async def fix(self) -> list[Finding]:
        """Delete the keys that nobody would ever delete. Answers what is wrong afterwards."""
        for finding in await self.check():
            pair = await self._kv.get(finding.key) if finding.key else None
            if pair is None or pair.lease:
                continue
            compare = (Unchanged(pair.key, pair.mod_revision),)
            if (await self._kv.txn(compare, (Delete(pair.key),))).succeeded:
                self._log.info("key of a node that is gone deleted", key=pair.key)
        return await self.check()

    async def _announced(self) -> list[Announced]:
        found = []
        for pair in (await self._kv.list(schema.IPS)).pairs:
            try:
                entry = codec.decode_ip_entry(pair.key, pair.value, cluster_id=self._cluster.id)
            except PoisonedKey as error:
                self._skip(error)
            else:
                found.append(Announced(pair.key, entry, leased=pair.lease != 0))
        return found

    def _skip(self, error: PoisonedKey) -> None:
        """`meshnet status` lists it as `poisoned-key`."""
        self._log.debug("poisoned key", error=str(error))
