"""The cluster's settings as they are now: they may change while the agent runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog

from meshnet.kvstore.api import KV
from meshnet.logic import settings
from meshnet.model.cluster import Cluster
from meshnet.registry.store import get_cluster, put_cluster


class ClusterSettings:
    """Args: `current` answers them without etcd."""

    def __init__(self, kv: KV, current: Callable[[], Cluster]) -> None:
        self._kv = kv
        self._current = current
        self._told = current()
        self.changed: Callable[[], None] = lambda: None
        """Called when they are others than before; set by whoever obeys them."""
        self._log = structlog.get_logger()

    @property
    def cluster(self) -> Cluster:
        return self._current()

    def lifetime(self) -> timedelta:
        """Of new certificates."""
        return timedelta(seconds=self.cluster.certificate_lifetime_s)

    def refresh(self) -> None:
        """They may be others now."""
        before, self._told = self._told, self._current()
        if self._told != before:
            self.changed()

    async def set(self, key: str, value: str) -> dict[str, Any]:
        """Raises NotFound, UsageError; Conflict: somebody else changes them too."""
        stored = await get_cluster(self._kv)
        cluster = settings.changed(stored.item, key, value)
        await put_cluster(self._kv, cluster, unchanged=stored.mod_revision)
        self._log.info("setting changed", key=key)
        return {"key": key, "value": settings.get(cluster, key)}
