"""How much one remote may have us write.

etcd keeps every value it was given until it is compacted, up to a quota, and takes no more
writes at all from anybody once the quota is full. A remote that changes a large value all the
time must therefore be slowed down: only its own copy falls behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from meshnet.kvstore.api import Operation, Put

BURST_BYTES = 256 << 20
"""A first copy in full, twice."""
BYTES_PER_S = 128 << 10
"""Several hundred changes a second. In the hour until compaction 450 MiB, a fifth of the quota."""


class Budget:
    """Bytes that may be written at once, filled up at a steady rate."""

    def __init__(
        self,
        *,
        burst_bytes: int = BURST_BYTES,
        bytes_per_s: int = BYTES_PER_S,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._burst = burst_bytes
        self._rate = bytes_per_s
        self._clock = clock
        self._pause = pause
        self._left = float(burst_bytes)
        self._at = clock()

    async def spend(self, size: int) -> None:
        """Answers once the bytes are there; what is larger than the burst just takes longer."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - size
        self._at = now
        if self._left < 0:
            await self._pause(-self._left / self._rate)


def weight(operations: Iterable[Operation]) -> int:
    """Bytes that etcd will keep of them."""
    return sum(
        len(operation.key) + (len(operation.value) if isinstance(operation, Put) else 0)
        for operation in operations
    )
