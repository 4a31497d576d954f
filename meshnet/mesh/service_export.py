"""What the leader tells other clusters of this cluster's global services.

Level-triggered: what should stand under `cilium/state/services/v1/<own>/` is asked for, what
stands there is read, and the difference is written as the leader.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from meshnet.errors import Unreachable
from meshnet.kvstore.api import KV, Delete, Operation, Put
from meshnet.mesh.leadership import FencedWriter
from meshnet.registry import schema

RESYNC_S = 30.0
RETRY_S = 1.0


class ServiceExport:
    """Args: `wanted` answers all keys with their values, or None while that is not known."""

    def __init__(
        self, kv: KV, cluster: str, wanted: Callable[[], Mapping[str, bytes] | None]
    ) -> None:
        self._kv = kv
        self._prefix = schema.services(cluster)
        self._wanted = wanted
        self._changed = asyncio.Event()

    def trigger(self) -> None:
        """Something of it may have changed."""
        self._changed.set()

    async def run(self, writer: FencedWriter) -> None:
        """For ever. Raises LeaseLost when this node leads no more."""
        while True:
            self._changed.clear()
            wait_s = RESYNC_S
            try:
                await self.write(writer)
            except Unreachable:  # the lease's keeper decides when that is too long
                wait_s = RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    async def write(self, writer: FencedWriter) -> None:
        """Once."""
        wanted = self._wanted()
        if wanted is None:
            return
        there = {pair.key: pair.value for pair in (await self._kv.list(self._prefix)).pairs}
        operations: list[Operation] = [Delete(key) for key in there.keys() - wanted.keys()]
        operations += [Put(key, value) for key, value in wanted.items() if there.get(key) != value]
        if operations:
            await writer.write(operations)
