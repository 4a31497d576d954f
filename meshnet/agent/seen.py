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

POISONED_SHOWN = 20
"""How many bad keys `status` names; the log has them all."""


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
    last_event_at: float | None = None
    """time.time() of the last change."""

    def apply(self, update: Snapshot[T] | Changes[T]) -> None:
        if isinstance(update, Snapshot):
            self.items = dict(update.items)
            self.synced = True
            return
        self.last_event_at = time.time()
        for key, item in update.items.items():
            if item is None:
                self.items.pop(key, None)
            else:
                self.items[key] = item

    async def follow(self, kv: KV, changed: Callable[[], None]) -> None:
        """Keep the table true for ever; `changed` is called after every update."""
        async for update in follow(kv, self.prefix, self._decode, self._poisoned):
            self.apply(update)
            changed()

    def _decode(self, key: str, value: bytes) -> T:
        item = self.decode(key, value)
        self.poisoned.pop(key, None)
        return item

    def _poisoned(self, error: PoisonedKey) -> None:
        structlog.get_logger().warning("key skipped", key=error.key, error=error.reason)
        if len(self.poisoned) < POISONED_SHOWN:
            self.poisoned[error.key] = error.reason
