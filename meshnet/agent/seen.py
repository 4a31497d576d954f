"""What the watchers have seen: etcd's prefixes as plain tables.

One writer a table (its watcher), any number of readers; reconcilers read the tables and
are triggered when one changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs
import structlog

from meshnet.errors import PoisonedKey
from meshnet.kvstore.api import KV
from meshnet.registry.follow import Changes, Snapshot, follow

T = TypeVar("T")
Decode = Callable[[str, bytes], T]


@attrs.define
class Table(Generic[T]):
    """Everything under one prefix, by etcd key."""

    prefix: str
    decode: Decode[T]
    items: dict[str, T] = attrs.field(factory=dict)
    synced: bool = False
    """The first full listing has arrived."""
    poisoned: dict[str, str] = attrs.field(factory=dict)
    """Keys that could not be used -> why."""
    revision: int = 0
    """Of the store: everything up to here is in `items`."""
    last_event_at: float | None = None
    """time.time() of the last change."""

    _met: dict[str, str] = attrs.field(factory=dict)
    """Poisoned keys of the update that is being decoded: it does not say which they are."""

    def apply(self, update: Snapshot[T] | Changes[T]) -> None:
        met, self._met = self._met, {}
        self.revision = update.revision
        if isinstance(update, Snapshot):
            self.items = dict(update.items)
            self.poisoned = met
            self.synced = True
            return
        self.last_event_at = time.time()
        for key, item in update.items.items():
            self.poisoned.pop(key, None)  # it was corrected or deleted, unless it is in `met`
            if item is None:
                self.items.pop(key, None)
            else:
                self.items[key] = item
        self.poisoned |= met

    async def follow(self, kv: KV, changed: Callable[[], None]) -> None:
        """Keep the table true for ever; `changed` is called after every update."""
        async for update in follow(kv, self.prefix, self._decode, _log_poisoned):
            self.apply(update)
            changed()

    def _decode(self, key: str, value: bytes) -> T:
        try:
            return self.decode(key, value)
        except PoisonedKey as error:
            self._met[key] = error.reason
            raise


def _log_poisoned(error: PoisonedKey) -> None:
    structlog.get_logger().warning("key skipped", key=error.key, error=error.reason)
