"""The one way to put keys that must die with this node.

A Session is a lease and every key that hangs on it. It remembers the keys, so when etcd
let the lease go (a long cut, a frozen etcd that thaws) it takes a new one and puts them all
again within a second of being able to. A put without its lease would set the key free for
ever, which is why nobody else puts leased keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from meshnet.errors import LeaseLost, RegistryError
from meshnet.kvstore.api import KV, MAX_OPERATIONS, Delete, Operation, Put

TTL_S = 30
INTERVAL_S = 10.0
RETRY_S = 0.5


class Session:
    """`ttl_s`: how long the keys outlive this process. `clock`: monotonic seconds."""

    def __init__(
        self,
        kv: KV,
        *,
        ttl_s: int = TTL_S,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.lease = 0
        """0: none yet, or lost and not yet replaced."""
        self.deadline = 0.0
        """By `clock`: past it others may have seen our keys go. Counted from before the
        request that renewed the lease, so it errs to the safe side."""
        self.losses = 0
        """How often a lease went before its time."""
        self._kv = kv
        self._ttl_s = ttl_s
        self._interval_s = interval_s
        self._clock = clock
        self._pause = pause
        self._lock = asyncio.Lock()
        self._wanted: dict[str, bytes] = {}
        self._ended = False
        self._owed: set[str] = set()
        """Keys whose last put or delete is not known to have arrived."""

    @property
    def held(self) -> bool:
        """The lease is certainly alive."""
        return bool(self.lease) and self._clock() < self.deadline

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(self._wanted)

    def want(self, key: str, value: bytes) -> None:
        """Name a key that shall be there for as long as the session runs. `flush` writes it,
        or `run` when it can."""
        self._wanted[key] = value
        self._owed.add(key)

    def forget(self, key: str) -> None:
        """Name a key that shall be gone, as `want` does one that shall be there."""
        self._wanted.pop(key, None)
        self._owed.add(key)

    async def flush(self) -> None:
        """Write all that is owed, in as few transactions as etcd takes. Raises Unreachable:
        `run` will write it when it can. Nothing to undo but `forget`."""
        async with self._lock:
            await self._settle()

    async def put(self, key: str, value: bytes) -> None:
        """`want` and `flush`."""
        self.want(key, value)
        await self.flush()

    async def delete(self, key: str) -> None:
        """`forget` and `flush`."""
        self.forget(key)
        await self.flush()

    async def reassert(self) -> None:
        """Write every key again, as after etcd came back with an older state."""
        self._owed |= set(self._wanted)
        await self.flush()

    async def renew(self) -> None:
        """Prove the lease now, as when one of our keys was seen to go. Raises Unreachable."""
        async with self._lock:
            if self.lease:
                try:
                    asked_at = self._clock()
                    await self._kv.keep_alive(self.lease)
                    self.deadline = asked_at + self._ttl_s
                except LeaseLost:
                    self._lost()
            await self._settle()

    async def run(self) -> None:
        """Keep the lease alive and the keys written. Never returns; cancel it."""
        log = structlog.get_logger()
        failing = False
        while True:
            try:
                await self.renew()
                failing = False
                await self._pause(self._interval_s)
            except RegistryError as error:
                if not failing:
                    log.warning("lease not renewed", error=str(error))
                failing = True
                await self._pause(RETRY_S)

    async def revoke(self) -> None:
        """End the session: all keys go now, and none comes any more, whoever still puts one.
        Only after `run` was cancelled."""
        async with self._lock:
            self._ended = True
            self._wanted.clear()
            self._owed.clear()
            lease, self.lease, self.deadline = self.lease, 0, 0.0
            if lease:
                await self._kv.revoke(lease)

    async def _settle(self) -> None:
        """Bring everything owed to etcd, under a new lease where there is none."""
        while not self._ended and (not self.lease or self._owed):
            if not self.lease:
                asked_at = self._clock()
                self.lease = await self._kv.grant(self._ttl_s)
                self.deadline = asked_at + self._ttl_s
                self._owed |= set(self._wanted)
            batch = sorted(self._owed)[:MAX_OPERATIONS]
            values = {key: self._wanted.get(key) for key in batch}
            try:
                await self._kv.txn((), [self._operation(*pair) for pair in values.items()])
            except LeaseLost:
                self._lost()
                continue
            self._owed -= {key for key in batch if self._wanted.get(key) == values[key]}

    def _operation(self, key: str, value: bytes | None) -> Operation:
        return Delete(key) if value is None else Put(key, value, self.lease)

    def _lost(self) -> None:
        structlog.get_logger().warning("lease lost, keys are put again", keys=len(self._wanted))
        self.lease, self.deadline = 0, 0.0
        self.losses += 1
