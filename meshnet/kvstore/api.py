"""The port to a key-value store: bytes under keys, with revisions.

Two implementations pass one contract suite (tests/contract/test_kvstore.py):
`etcd.EtcdKV` and, in process, `memory.MemoryKV`. Every method raises only
`meshnet.errors` types: Unreachable, Denied, Compacted, LeaseLost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import attrs

MAX_OPERATIONS = 100
"""Of one transaction. etcd's own limit is 128."""


@attrs.frozen
class KeyValue:
    key: str
    value: bytes
    mod_revision: int
    create_revision: int
    lease: int = 0


@attrs.frozen
class Listing:
    """Everything under a prefix at one revision, sorted by key."""

    revision: int
    pairs: tuple[KeyValue, ...]
    store: int = 0
    """Whose revision it is: another store counts from elsewhere (etcd: cluster id)."""


@attrs.frozen
class Batch:
    """Every event of one revision under the watched prefix, whole and in order."""

    revision: int
    events: tuple[KeyValue | Deleted, ...]


@attrs.frozen
class Deleted:
    key: str
    mod_revision: int


@attrs.frozen
class Put:
    key: str
    value: bytes
    lease: int = 0


@attrs.frozen
class Delete:
    key: str
    prefix: bool = False
    """Delete everything under `key`."""


@attrs.frozen
class Created:
    """Compare: the key's create revision equals `revision`; 0 means it does not exist."""

    key: str
    revision: int = 0


@attrs.frozen
class Unchanged:
    """Compare: the key's mod revision equals `revision`."""

    key: str
    revision: int


@attrs.frozen
class ValueIs:
    key: str
    value: bytes


Compare = Created | Unchanged | ValueIs
Operation = Put | Delete


@attrs.frozen
class TxnResult:
    succeeded: bool
    revision: int


class KV(Protocol):
    """One store. Keys are text, values bytes. Unary calls time out (default 4 s).

    A `prefix` ends with a slash. One that does not is a whole key, so that no prefix ever
    covers its neighbour (`nodes/v1/east` is not `nodes/v1/east2`). Empty is everything.
    """

    async def get(self, key: str) -> KeyValue | None:
        """One key, linearizable."""

    async def list(self, prefix: str) -> Listing:
        """Everything under `prefix` at one revision; paged inside, any size."""

    def watch(self, prefix: str, *, after: int, store: int = 0) -> AsyncGenerator[Batch, None]:
        """Every change under `prefix` after revision `after`, gap-free, until cancelled.

        `after` and `store` come from a Listing (store 0: not checked), or `after` is the
        revision of the last Batch. Close the iterator (`contextlib.aclosing`) to end it.
        Ends only by raising: Compacted (the revision is gone, or of another or a restored
        store: list again), Unreachable (connection lost, the server mute, or its quorum
        gone; list or watch again), Denied.
        """

    async def txn(self, compares: Sequence[Compare], then: Sequence[Operation]) -> TxnResult:
        """All of `then` in one revision if every compare holds, else nothing.

        At most MAX_OPERATIONS; no key may be written twice. Raises LeaseLost as `put`
        does, Denied when etcd refuses the request itself. After Unreachable it may or
        may not have happened.
        """

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        """Write one key; returns the revision. Raises LeaseLost when the lease is gone."""

    async def delete(self, key: str) -> bool:
        """Delete one key; False when there was none."""

    async def grant(self, ttl_s: int) -> int:
        """A new lease; its keys vanish `ttl_s` after the last keep-alive."""

    async def keep_alive(self, lease: int) -> int:
        """Renew once; returns the seconds left. Raises LeaseLost when it is gone."""

    async def revoke(self, lease: int) -> None:
        """End a lease and its keys now. A lease that is gone is not an error."""

    async def revision(self) -> int:
        """The current revision: proves that the store answers and has a quorum."""

    async def close(self) -> None: ...
