"""Following a prefix of etcd for ever, in types.

Two kinds of update, one law: folding them gives exactly what a fresh listing would give.
A Snapshot replaces, Changes amend. Compaction, a restart of etcd, a lost connection and a
restored backup are nobody else's concern: the worst they do is another Snapshot.
"""

from __future__ import annotations

import contextlib
import random
import time
from asyncio import sleep
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

import attrs

from meshnet.errors import Compacted, PoisonedKey, RegistryError, Unreachable
from meshnet.kvstore.api import KV, Batch, KeyValue, Listing

T = TypeVar("T")
Decode = Callable[[str, bytes], T]

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 3.0


@attrs.frozen
class Snapshot(Generic[T]):
    """Everything under the prefix at one revision, by etcd key. Replaces what was known."""

    revision: int
    items: dict[str, T]


@attrs.frozen
class Changes(Generic[T]):
    """Every change of one revision, by etcd key. None: the key was deleted, or is poisoned."""

    revision: int
    items: dict[str, T | None]


@attrs.define
class FollowStatus:
    """How a follow is doing, for `status` and `mesh status`. Its Follower alone writes it."""

    connected: bool = False
    """The store answered last time."""
    revision: int = 0
    """Everything up to here was seen."""
    last_event_at: float | None = None
    """time.time() of the last Snapshot or Changes."""
    reconnects: int = 0
    relists: int = 0
    """Snapshots after the first."""
    error: str | None = None
    """Why it is not connected."""


class Follower(Generic[T]):
    """Follows one prefix.

    Args:
        decode: raises PoisonedKey for a value that cannot be used. Such a key counts as
            absent, and everything else goes on.
        on_poisoned: is told once for every write that cannot be used.
    """

    def __init__(
        self,
        kv: KV,
        prefix: str,
        decode: Decode[T],
        on_poisoned: Callable[[PoisonedKey], None],
        *,
        pause: Callable[[float], Awaitable[None]] = sleep,
    ) -> None:
        self.status = FollowStatus()
        self._kv = kv
        self._prefix = prefix
        self._decode = decode
        self._on_poisoned = on_poisoned
        self._pause = pause
        self._reported: dict[str, int] = {}
        """Poisoned key -> mod_revision."""
        self._delay_s = FIRST_DELAY_S

    async def updates(self) -> AsyncGenerator[Snapshot[T] | Changes[T], None]:
        """A Snapshot first, then Changes, gap-free; a Snapshot again where history was lost.

        Never ends. Raises only Denied: asking again would not help.
        """
        listing: Listing | None = None
        while True:
            try:
                if listing is None:
                    listing = await self._kv.list(self._prefix)
                    yield self._snapshot(listing)
                async with contextlib.aclosing(self._watch(listing)) as batches:
                    async for batch in batches:
                        yield self._changes(batch)
            except Compacted as error:
                listing = None
                await self._disconnected(error)
            except Unreachable as error:
                await self._disconnected(error)

    def _watch(self, listing: Listing) -> AsyncGenerator[Batch, None]:
        return self._kv.watch(self._prefix, after=self.status.revision, store=listing.store)

    def _snapshot(self, listing: Listing) -> Snapshot[T]:
        if self.status.last_event_at is not None:
            self.status.relists += 1
        keys = {pair.key for pair in listing.pairs}
        self._reported = {key: at for key, at in self._reported.items() if key in keys}
        decoded = ((pair.key, self._item(pair)) for pair in listing.pairs)
        self._seen(listing.revision)
        return Snapshot(listing.revision, {key: item for key, item in decoded if item is not None})

    def _changes(self, batch: Batch) -> Changes[T]:
        self._seen(batch.revision)
        return Changes(
            batch.revision,
            {
                event.key: self._item(event) if isinstance(event, KeyValue) else None
                for event in batch.events
            },
        )

    def _item(self, pair: KeyValue) -> T | None:
        try:
            item = self._decode(pair.key, pair.value)
        except PoisonedKey as error:
            if self._reported.get(pair.key) != pair.mod_revision:
                self._reported[pair.key] = pair.mod_revision
                self._on_poisoned(error)
            return None
        self._reported.pop(pair.key, None)
        return item

    def _seen(self, revision: int) -> None:
        self._delay_s = FIRST_DELAY_S
        self.status.connected = True
        self.status.error = None
        self.status.revision = revision
        self.status.last_event_at = time.time()

    async def _disconnected(self, error: RegistryError) -> None:
        """Wait longer each time, and not in step with the other nodes."""
        self.status.connected = False
        self.status.error = str(error)
        self.status.reconnects += 1
        await self._pause(self._delay_s * random.uniform(0.5, 1.0))
        self._delay_s = min(self._delay_s * 2, LONGEST_DELAY_S)


def follow(
    kv: KV, prefix: str, decode: Decode[T], on_poisoned: Callable[[PoisonedKey], None]
) -> AsyncGenerator[Snapshot[T] | Changes[T], None]:
    """`Follower.updates` for who does not ask how it is doing."""
    return Follower(kv, prefix, decode, on_poisoned).updates()
