"""The cluster's settings as they are now: they may change while the agent runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog

from meshnet.errors import PoisonedKey
from meshnet.kvstore.api import KV
from meshnet.logic import settings
from meshnet.model.cluster import Cluster
from meshnet.registry import codec, schema
from meshnet.registry.follow import follow
from meshnet.registry.store import get_cluster, put_cluster


class ClusterSettings:
    """`initial`: as the agent knew them at its start, so that it needs no etcd for them."""

    def __init__(self, kv: KV, initial: Cluster) -> None:
        self._kv = kv
        self.cluster = initial
        self.changed: Callable[[], None] = lambda: None
        """Called when they are others than before; set by whoever obeys them."""
        self._log = structlog.get_logger()

    def lifetime(self) -> timedelta:
        """Of new certificates."""
        return timedelta(seconds=self.cluster.certificate_lifetime_s)

    async def run(self) -> None:
        """Never returns."""
        async for update in follow(self._kv, schema.CONFIG, codec.decode_cluster, self._poisoned):
            found = update.items.get(schema.CONFIG)
            if found is not None and found != self.cluster:
                self.cluster = found
                self.changed()

    async def set(self, key: str, value: str) -> dict[str, Any]:
        """Raises NotFound, UsageError; Conflict: somebody else changes them too."""
        stored = await get_cluster(self._kv)
        cluster = settings.changed(stored.item, key, value)
        await put_cluster(self._kv, cluster, unchanged=stored.mod_revision)
        self._log.info("setting changed", key=key)
        return {"key": key, "value": settings.get(cluster, key)}

    def _poisoned(self, error: PoisonedKey) -> None:
        self._log.error("key skipped", key=error.key, error=error.reason)
