"""One leader a cluster, and writes that only the leader can make.

The leader's key is created once and hangs on a lease. Its create revision is the fencing
token: every write of the leader compares it, so that a leader that was frozen, lost its
lease and thaws changes nothing, however late its write arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import attrs
import structlog

from meshnet.errors import LeaseLost, RegistryError, Unreachable
from meshnet.kvstore.api import (
    KV,
    MAX_OPERATIONS,
    Compare,
    Created,
    Deleted,
    Operation,
    Put,
)
from meshnet.registry import schema

LEADER_TTL_S = 10
RETRY_S = 1.0
MAX_TXN_BYTES = 1 << 20
"""etcd takes 1.5 MiB a request, keys and framing included."""


@attrs.frozen
class FencedWriter:
    """Writes as the leader of one term. Raises LeaseLost as soon as the term is over."""

    kv: KV
    revision: int
    """Create revision of the leader's key in this term."""
    lease: int
    """For keys that must not outlive the term."""

    async def write(self, operations: Sequence[Operation]) -> None:
        """Write all, in order, as few transactions as etcd's limits allow."""
        for batch in _batches(operations):
            await self.write_if((), batch)

    async def write_if(self, compares: Sequence[Compare], then: Sequence[Operation]) -> bool:
        """One transaction; False when a compare does not hold."""
        fence = Created(schema.LEADER, self.revision)
        if (await self.kv.txn((fence, *compares), then)).succeeded:
            return True
        leader = await self.kv.get(schema.LEADER)
        if leader is None or leader.create_revision != self.revision:
            raise LeaseLost(f"{schema.LEADER}: another node leads now, nothing was written")
        return False


def _batches(operations: Iterable[Operation]) -> Iterable[Sequence[Operation]]:
    batch: list[Operation] = []
    size = 0
    for operation in operations:
        weight = len(operation.key) + (len(operation.value) if isinstance(operation, Put) else 0)
        if batch and (len(batch) == MAX_OPERATIONS or size + weight > MAX_TXN_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(operation)
        size += weight
    if batch:
        yield batch


class Leadership:
    """A node's standing candidacy. `run` never ends: it waits, leads, and waits again."""

    def __init__(
        self,
        kv: KV,
        node: str,
        *,
        ttl_s: int = LEADER_TTL_S,
        retry_s: float = RETRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kv = kv
        self._node = node
        self._ttl_s = ttl_s
        self._retry_s = retry_s
        self._clock = clock
        self._log = structlog.get_logger(node=node)
        self.leading = False

    async def run(self, lead: Callable[[FencedWriter], Awaitable[None]]) -> None:
        """Call `lead` whenever this node leads; it is cancelled when the term is over.

        A RegistryError out of `lead` ends the term; any other is a fault and is raised.
        """
        while True:
            try:
                await self._lead_a_term(lead)
            except* RegistryError as group:
                self._log.warning("leadership interrupted", error=str(first_error(group)))
            await asyncio.sleep(self._retry_s)

    async def _lead_a_term(self, lead: Callable[[FencedWriter], Awaitable[None]]) -> None:
        lease, revision, sent = await self._take()
        self._log.info("leading", revision=revision)
        self.leading = True
        try:
            async with asyncio.TaskGroup() as tasks:
                keeper = tasks.create_task(self._keep(lease, sent + self._ttl_s))
                await lead(FencedWriter(self._kv, revision, lease))
                keeper.cancel()
        finally:
            self.leading = False
            await self._give_up(lease)

    async def _take(self) -> tuple[int, int, float]:
        """(lease, create revision, when the lease was asked for)."""
        while True:
            await self._until_vacant()
            sent = self._clock()
            lease = await self._kv.grant(self._ttl_s)
            try:
                put = Put(schema.LEADER, self._node.encode(), lease)
                result = await self._kv.txn((Created(schema.LEADER),), (put,))
            except BaseException:
                # It may have happened: a leader nobody knows of would block all for a TTL.
                await self._give_up(lease)
                raise
            if result.succeeded:
                return lease, result.revision, sent
            await self._give_up(lease)

    async def _until_vacant(self) -> None:
        listing = await self._kv.list(schema.LEADER)
        if not any(pair.key == schema.LEADER for pair in listing.pairs):
            return
        watch = self._kv.watch(schema.LEADER, after=listing.revision, store=listing.store)
        async with contextlib.aclosing(watch) as batches:
            async for batch in batches:
                for event in batch.events:
                    if isinstance(event, Deleted) and event.key == schema.LEADER:
                        return

    async def _keep(self, lease: int, deadline: float) -> None:
        """Keep the lease alive. By our own clock it ends no later than by etcd's, for the
        time counts from when the request was sent."""
        while True:
            await asyncio.sleep(min(self._ttl_s / 3, max(0.1, deadline - self._clock())))
            sent = self._clock()
            try:
                await self._kv.keep_alive(lease)
            except Unreachable as error:
                if self._clock() >= deadline:
                    raise LeaseLost(f"{schema.LEADER}: lease {lease:x} ran out: {error}") from error
            else:
                deadline = sent + self._ttl_s

    async def _give_up(self, lease: int) -> None:
        """Let another lead at once. Where etcd does not answer, the TTL does it."""
        with contextlib.suppress(RegistryError):
            await asyncio.shield(self._kv.revoke(lease))


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One error of a group, for a log line."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
