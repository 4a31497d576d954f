"""One remote's keys as it has them, what of them is believed, and what our etcd has.

No I/O: events go in, operations come out. `operations` are the least that make our copy
right; the caller tells `written` when they are in etcd, or `doubt` when it cannot know.
Keys of events are the remote's (`cilium/state/...`), keys of operations are ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshnet.kvstore.api import Delete, Deleted, KeyValue, Operation, Put
from meshnet.logic.admission import (
    MAX_BYTES,
    MAX_KEYS,
    Admission,
    Boundary,
    Claim,
    Unreadable,
    spoken,
)
from meshnet.mesh.claims import Kind

MAX_LEFT_OUT = 1000
"""Keys without room that are remembered by name; a flood of them must not fill our memory."""


class Replica:
    """`refusals`: the remote's keys that are not believed -> why."""

    def __init__(
        self,
        boundary: Boundary,
        kinds: tuple[Kind, ...],
        *,
        max_keys: int = MAX_KEYS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.admission = Admission(boundary)
        self.refusals: dict[str, str] = {}
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        # Every key there is room for; the value of one that cannot be read is not kept.
        self._values: dict[Kind, dict[str, bytes]] = {kind: {} for kind in kinds}
        self._bytes = 0
        # Keys there is no room for -> their bytes; and the kinds of more of them.
        self._over: dict[str, int] = {}
        self._flooded: set[Kind] = set()
        # By our key. None: it may or may not be there, with whatever value.
        self._copied: dict[str, bytes | None] = {}
        # The remote's keys to judge anew; a dict, for it keeps the order.
        self._dirty: dict[str, Kind] = {}

    @property
    def starved(self) -> bool:
        """Keys were left out for want of room, and now there is room: list again."""
        half_empty = self._bytes <= self._max_bytes // 2
        if half_empty and any(self._few(kind) for kind in self._flooded):
            return True
        return any(self._has_room(self._kind(key), size) for key, size in self._over.items())

    def copied(self, pairs: Iterable[KeyValue]) -> None:
        """What our etcd has of this remote from before."""
        self._copied |= {pair.key: pair.value for pair in pairs}

    def relist(self, kind: Kind, pairs: Iterable[KeyValue]) -> None:
        """Everything the remote has of one kind: what is not named is gone."""
        found = {pair.key: pair.value for pair in pairs}
        ours = (kind.exported_key(key) for key in self._copied if key.startswith(kind.cached))
        known = [key for key in self.admission.keys if key.startswith(kind.exported)]
        for key in {*known, *ours} - found.keys():
            self._delete(kind, key)
        self._flooded.discard(kind)
        for key, value in found.items():
            self._put(kind, key, value)

    def apply(self, kind: Kind, events: Iterable[KeyValue | Deleted]) -> None:
        """What the remote wrote and deleted."""
        for event in events:
            if isinstance(event, Deleted):
                self._delete(kind, event.key)
            else:
                self._put(kind, event.key, event.value)

    def hold_to(self, boundary: Boundary) -> None:
        """Judge by new records of ours."""
        self._mark(self.admission.hold_to(boundary))

    def operations(self) -> list[Operation]:
        """What makes our copy right, deletions first; the caller must have it written."""
        dirty, self._dirty = self._dirty, {}
        deletes: list[Operation] = []
        puts: list[Operation] = []
        for key, kind in dirty.items():
            ours, wanted = kind.cache_key(key), self._believed(kind, key)
            if wanted is None and ours in self._copied:
                deletes.append(Delete(ours))
            elif wanted is not None and self._copied.get(ours) != wanted:
                puts.append(Put(ours, wanted))
        return deletes + puts

    def written(self, operations: Iterable[Operation]) -> None:
        """The operations are in our etcd."""
        for operation in operations:
            if isinstance(operation, Put):
                self._copied[operation.key] = operation.value
            else:
                self._copied.pop(operation.key, None)

    def doubt(self, operations: Iterable[Operation]) -> None:
        """The operations may or may not be in our etcd: they are due again."""
        for operation in operations:
            self._copied[operation.key] = None
            kind = next(k for k in self._values if operation.key.startswith(k.cached))
            self._dirty[kind.exported_key(operation.key)] = kind

    def believed(self) -> dict[Kind, list[Claim]]:
        """What the remote says and is believed, by kind."""
        return {
            kind: [
                claim
                for key in values
                if key not in self.refusals
                and not isinstance(claim := self.admission.claim(key), Unreadable)
            ]
            for kind, values in self._values.items()
        }

    def _put(self, kind: Kind, key: str, value: bytes) -> None:
        self._forget(kind, key)
        size = len(key) + len(value)
        if not self._has_room(kind, size):
            self._leave_out(kind, key, size)
            return
        claim = kind.read(key, value)
        self._values[kind][key] = b"" if isinstance(claim, Unreadable) else value
        self._bytes += len(key) + len(self._values[kind][key])
        self._mark(self.admission.put(key, claim))

    def _delete(self, kind: Kind, key: str) -> None:
        self._forget(kind, key)
        self._mark({key, *self.admission.delete(key)})

    def _forget(self, kind: Kind, key: str) -> None:
        held = self._values[kind].pop(key, None)
        if held is not None:
            self._bytes -= len(key) + len(held)
        self._over.pop(key, None)

    def _has_room(self, kind: Kind, size: int) -> bool:
        return self._few(kind) and self._bytes + size <= self._max_bytes

    def _few(self, kind: Kind) -> bool:
        return len(self._values[kind]) < self._most(kind)

    def _most(self, kind: Kind) -> int:
        return min(self._max_keys, kind.max_keys)

    def _leave_out(self, kind: Kind, key: str, size: int) -> None:
        if len(self._over) >= MAX_LEFT_OUT:
            self._flooded.add(kind)
            self._delete(kind, key)
            return
        self._over[key] = size
        keys = f"{self._most(kind)} keys under {kind.exported}"
        limit = f"{self._max_bytes} bytes" if self._few(kind) else keys
        self._mark(self.admission.put(key, Unreadable(f"more than {limit}")))

    def _mark(self, keys: Iterable[str]) -> None:
        self._dirty |= {key: self._kind(key) for key in keys}

    def _kind(self, key: str) -> Kind:
        return next(kind for kind in self._values if key.startswith(kind.exported))

    def _believed(self, kind: Kind, key: str) -> bytes | None:
        """The value to copy, or None; remembers why not."""
        reason = self.admission.reason(key) if key in self.admission.keys else None
        if reason is None:
            self.refusals.pop(key, None)
            return self._values[kind].get(key)
        self.refusals[key] = spoken(reason)
        return None
