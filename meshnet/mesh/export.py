"""What the leader tells other clusters: of global services, of manifests for the whole mesh.

Level-triggered: what should stand under a prefix is asked for, what stands there is read, and
the difference is written as the leader.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from meshnet.errors import Unreachable
from meshnet.kvstore.api import KV, Delete, Operation, Put
from meshnet.mesh.leadership import FencedWriter

RESYNC_S = 30.0
RETRY_S = 1.0


class Export:
    """Args: `wanted` answers all keys of `prefix` with their values, or None while that is not
    known."""

    def __init__(
        self, kv: KV, prefix: str, wanted: Callable[[], Mapping[str, bytes] | None]
    ) -> None:
        self._kv = kv
        self._prefix = prefix
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
