"""Typed reading and writing of single keys: what a decoder makes of them, at a revision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from meshnet.errors import Conflict, NotFound, PoisonedKey
from meshnet.kvstore.api import KV, Put, Unchanged
from meshnet.kvstore.patience import ride
from meshnet.model.cluster import Cluster
from meshnet.model.node import Node
from meshnet.model.remote import Remote
from meshnet.registry import codec, schema

T = TypeVar("T")
Decode = Callable[[str, bytes], T]
OnPoisoned = Callable[[PoisonedKey], None]


@attrs.frozen
class Stored(Generic[T]):
    """An item as it lay in the store. `mod_revision` goes into `put_if`."""

    key: str
    item: T
    mod_revision: int


async def get_item(kv: KV, key: str, decode: Decode[T]) -> Stored[T] | None:
    """Raises PoisonedKey when it is there and cannot be used."""
    pair = await kv.get(key)
    return None if pair is None else Stored(key, decode(key, pair.value), pair.mod_revision)


async def list_items(
    kv: KV, prefix: str, decode: Decode[T], on_poisoned: OnPoisoned | None = None
) -> tuple[Stored[T], ...]:
    """All under a prefix. Poisoned keys go to `on_poisoned`, or are raised without it."""
    items = []
    for pair in (await kv.list(prefix)).pairs:
        try:
            items.append(Stored(pair.key, decode(pair.key, pair.value), pair.mod_revision))
        except PoisonedKey as error:
            if on_poisoned is None:
                raise
            on_poisoned(error)
    return tuple(items)


async def put_if(kv: KV, key: str, value: bytes, *, unchanged: int) -> int:
    """Write unless somebody else did since `unchanged` (0: the key must not exist).

    Returns the revision. Raises Conflict: read again, decide again.
    """
    result = await kv.txn((Unchanged(key, unchanged),), (Put(key, value),))
    if not result.succeeded:
        raise Conflict(f"{key} was changed by somebody else: read it again")
    return result.revision


async def put_unique(kv: KV, key: str, value: bytes, *, unchanged: int) -> None:
    """`put_if` that rides over a restart of etcd, of a value that nobody else would write: found
    there, it is ours, and the answer was lost."""

    async def attempt() -> None:
        try:
            await put_if(kv, key, value, unchanged=unchanged)
        except Conflict:
            found = await kv.get(key)
            if found is None or found.value != value:
                raise

    await ride(attempt)


async def get_cluster(kv: KV) -> Stored[Cluster]:
    """What this cluster agreed on at init. Raises NotFound: this etcd holds no cluster."""
    found = await get_item(kv, schema.CONFIG, codec.decode_cluster)
    if found is None:
        raise NotFound(f"{schema.CONFIG} does not exist: no cluster was made in this etcd")
    return found


async def put_cluster(kv: KV, cluster: Cluster, *, unchanged: int = 0) -> int:
    return await put_if(kv, schema.CONFIG, codec.encode_cluster(cluster), unchanged=unchanged)


async def get_node(kv: KV, cluster: str, name: str) -> Stored[Node] | None:
    return await get_item(kv, schema.node(cluster, name), codec.decode_node)


async def get_remote(kv: KV, name: str) -> Stored[Remote] | None:
    return await get_item(kv, schema.remote(name), codec.decode_remote)


async def list_remotes(kv: KV, on_poisoned: OnPoisoned | None = None) -> tuple[Stored[Remote], ...]:
    return await list_items(kv, schema.REMOTES, codec.decode_remote, on_poisoned)
