"""A KV inside the process, for tests and for reading what the contract means.

It understands what etcd understands: revisions, transactions, leases on a clock of the
caller's, watches, compaction, a lost connection, a restored backup. It passes the same
suite as etcd (tests/contract/test_kvstore.py).
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

import attrs

from meshnet.errors import Compacted, Denied, LeaseLost, NotPermitted, Unreachable
from meshnet.kvstore.api import (
    MAX_OPERATIONS,
    Batch,
    Compare,
    Created,
    Delete,
    Deleted,
    KeyValue,
    Listing,
    Operation,
    Put,
    TxnResult,
    Unchanged,
    ValueIs,
)


@attrs.define
class _Lease:
    ttl_s: int
    deadline: float


@attrs.frozen
class Backup:
    """What a store held at one revision."""

    revision: int
    pairs: dict[str, KeyValue]


class MemoryKV:
    """`clock` gives seconds and drives leases only; call `expire` after moving it."""

    STORE = 1

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._revision = 1
        self._compacted = 0
        self._pairs: dict[str, KeyValue] = {}
        self._history: list[Batch] = []
        self._leases: dict[int, _Lease] = {}
        self._lease_ids = itertools.count(0x1000)
        self._news = asyncio.Event()
        self._connection = 0
        self._outage: str | None = None
        self._denied: tuple[str, ...] = ()

    # --- the port ------------------------------------------------------------------------

    async def get(self, key: str) -> KeyValue | None:
        self._admit(key)
        return self._pairs.get(key)

    async def list(self, prefix: str) -> Listing:
        self._admit(prefix)
        pairs = (self._pairs[key] for key in sorted(self._under(prefix)))
        return Listing(self._revision, tuple(pairs), self.STORE)

    async def watch(
        self, prefix: str, *, after: int, store: int = 0
    ) -> AsyncGenerator[Batch, None]:
        self._admit(prefix)
        connection = self._connection
        if store not in (0, self.STORE) or after > self._revision:
            raise Compacted(f"revision {after} is not of this store: list again")
        while True:
            if max(after, 1) < self._compacted:
                raise Compacted(f"revision {after} was compacted away: list again")
            news, revision = self._news, self._revision
            for batch in self._since(after, prefix):
                yield batch
            after = revision
            await self._wait(news)
            if connection != self._connection:
                raise Unreachable(self._outage or "connection lost")

    async def txn(self, compares: Sequence[Compare], then: Sequence[Operation]) -> TxnResult:
        self._admit(*(operation.key for operation in then))
        self._check_operations(then)
        if not all(self._holds(compare) for compare in compares):
            return TxnResult(False, self._revision)
        for operation in then:
            if isinstance(operation, Put):
                self._check_lease(operation.lease)
        self._commit(then)
        return TxnResult(True, self._revision)

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        return (await self.txn((), (Put(key, value, lease),))).revision

    async def delete(self, key: str) -> bool:
        before = self._revision
        return (await self.txn((), (Delete(key),))).revision != before

    async def grant(self, ttl_s: int) -> int:
        self._admit()
        lease = next(self._lease_ids)
        self._leases[lease] = _Lease(ttl_s, self._clock() + ttl_s)
        self._announce()
        return lease

    async def keep_alive(self, lease: int) -> int:
        self._admit()
        self._check_lease(lease)
        held = self._leases[lease]
        held.deadline = self._clock() + held.ttl_s
        return held.ttl_s

    async def revoke(self, lease: int) -> None:
        self._admit()
        if self._leases.pop(lease, None):
            self._drop_keys({lease})

    async def revision(self) -> int:
        self._admit()
        return self._revision

    async def close(self) -> None:
        self.disconnect("closed")

    # --- what befalls a store ----------------------------------------------------------------

    def expire(self) -> None:
        """End the leases whose time is over, and their keys with them."""
        now = self._clock()
        over = {lease for lease, held in self._leases.items() if held.deadline <= now}
        for lease in over:
            del self._leases[lease]
        self._drop_keys(over)

    def compact(self, revision: int) -> None:
        """Forget how things were before `revision`."""
        self._compacted = revision
        self._history = [batch for batch in self._history if batch.revision >= revision]

    def disconnect(self, reason: str) -> None:
        """Break every watch and refuse every call until `reconnect`."""
        self._outage = reason
        self._connection += 1
        self._announce()

    def reconnect(self) -> None:
        self._outage = None

    def deny(self, *prefixes: str) -> None:
        """Refuse everything under these prefixes from now on."""
        self._denied = prefixes

    def backup(self) -> Backup:
        return Backup(self._revision, dict(self._pairs))

    def restore(self, backup: Backup) -> None:
        """Go back to a backup: what was written since never was."""
        self._revision = backup.revision
        self._pairs = dict(backup.pairs)
        self._history = []
        self._compacted = backup.revision
        self._leases.clear()
        self._connection += 1
        self._announce()

    # --- inside ------------------------------------------------------------------------------

    def _admit(self, *keys: str) -> None:
        if self._outage is not None:
            raise Unreachable(self._outage)
        for key in keys:
            if key.startswith(self._denied or ("\0",)):
                raise NotPermitted(f"{key}: permission denied")
        self.expire()

    def _under(self, prefix: str) -> Iterable[str]:
        return [key for key in self._pairs if _covers(prefix, key)]

    def _holds(self, compare: Compare) -> bool:
        found = self._pairs.get(compare.key)
        match compare:
            case Created(revision=revision):
                return revision == (found.create_revision if found else 0)
            case Unchanged(revision=revision):
                return revision == (found.mod_revision if found else 0)
            case ValueIs(value=value):
                return found is not None and found.value == value

    def _check_operations(self, then: Sequence[Operation]) -> None:
        if len(then) > MAX_OPERATIONS:
            raise Denied(f"{len(then)} operations in one transaction: {MAX_OPERATIONS} at most")
        puts = [operation.key for operation in then if isinstance(operation, Put)]
        gone = [operation for operation in then if isinstance(operation, Delete)]
        overlap = any(
            d.key == key or (d.prefix and _covers(d.key, key)) for d in gone for key in puts
        )
        if overlap or len(set(puts)) < len(puts):
            raise Denied("duplicate key given in txn request")

    def _check_lease(self, lease: int) -> None:
        if lease and lease not in self._leases:
            raise LeaseLost(f"lease {lease:x} is gone: put its keys again under a new one")

    def _commit(self, then: Sequence[Operation]) -> None:
        revision = self._revision + 1
        events: list[KeyValue | Deleted] = []
        for operation in then:
            if isinstance(operation, Put):
                old = self._pairs.get(operation.key)
                created = old.create_revision if old else revision
                pair = KeyValue(operation.key, operation.value, revision, created, operation.lease)
                self._pairs[operation.key] = pair
                events.append(pair)
                continue
            doomed = self._under(operation.key) if operation.prefix else (operation.key,)
            events += [Deleted(k, revision) for k in sorted(doomed) if self._pairs.pop(k, None)]
        if events:
            self._revision = revision
            self._history.append(Batch(revision, tuple(events)))
            self._announce()

    def _drop_keys(self, leases: set[int]) -> None:
        doomed = [key for key, pair in self._pairs.items() if pair.lease in leases]
        if doomed:
            self._commit([Delete(key) for key in doomed])

    def _since(self, after: int, prefix: str) -> Iterable[Batch]:
        start = bisect.bisect_right(self._history, after, key=lambda batch: batch.revision)
        for batch in self._history[start:]:
            events = tuple(event for event in batch.events if _covers(prefix, event.key))
            if events:
                yield Batch(batch.revision, events)

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _wait(self, news: asyncio.Event) -> None:
        """Until something happened, or a lease may have ended."""
        deadlines = [held.deadline for held in self._leases.values()]
        remaining = max(0.01, min(deadlines) - self._clock()) if deadlines else None
        with contextlib.suppress(TimeoutError):
            # Not wait_for: Python 3.11's forgets a cancellation that comes with the news.
            async with asyncio.timeout(remaining):
                await news.wait()
        self.expire()


def _covers(prefix: str, key: str) -> bool:
    return key.startswith(prefix) if prefix.endswith("/") or not prefix else key == prefix
