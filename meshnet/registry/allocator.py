"""Claims on shared numbers and prefixes: create-only, so that two claimants never share.

No counters: a counter makes every node wait for every other (probed: 5 times slower), and
a lost answer costs a number. Here a lost answer costs nothing: who asks again finds its own
name on what it was given.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence

import attrs

from meshnet.errors import Conflict, PoisonedKey, PoolExhausted
from meshnet.kvstore.api import KV, Created, Put, Unchanged, ValueIs
from meshnet.logic.ipam import free_block
from meshnet.model.addressing import PodCIDR, Prefix, contains
from meshnet.model.cluster import Cluster
from meshnet.model.identity import (
    CLUSTER_SHIFT,
    FIRST_LOCAL,
    LAST_LOCAL,
    Identity,
    LabelSet,
    belongs_to,
)
from meshnet.registry import codec, schema
from meshnet.registry.store import Stored, list_items

ATTEMPTS = 32
NEAR_BLOCKS = 4096
"""A node's block is drawn from the first so many free ones: enough that two nodes seldom draw
the same, few enough that IPv6 addresses stay short."""
IDENTITIES = LAST_LOCAL - FIRST_LOCAL + 1


async def allocate_pod_cidrs(kv: KV, cluster: Cluster, node: str) -> tuple[PodCIDR, ...]:
    """One block for `node` out of each of the cluster's PodCIDRs; its own again, if it has some.

    Raises:
        PoolExhausted: a pool has no room for one more node.
        Conflict: others were faster every time; try again.
    """
    return tuple([await _allocate_block(kv, cluster, pool, node) for pool in cluster.pod_cidrs])


async def pod_cidrs_of(kv: KV, node: str) -> tuple[PodCIDR, ...]:
    return tuple(held.item for held in await _allocations(kv) if held.item.node == node)


async def release_pod_cidrs(kv: KV, node: str) -> tuple[PodCIDR, ...]:
    """Free what `node` had; returns it. The next owner gets a higher epoch.

    Whoever calls this says that the node is gone: it may still hold addresses.
    """
    released = []
    for held in await _allocations(kv):
        if held.item.node == node:
            freed = attrs.evolve(held.item, node="", epoch=held.item.epoch + 1)
            operation = Put(held.key, codec.encode_pod_cidr(freed))
            if (await kv.txn((Unchanged(held.key, held.mod_revision),), (operation,))).succeeded:
                released.append(held.item)
    return tuple(released)


async def allocate_identity(kv: KV, cluster_id: int, labels: LabelSet) -> int:
    """The number of a label set in this cluster: the one it has, or a new one.

    Any number of nodes may ask for the same labels at once and get the same answer.

    Raises:
        PoolExhausted: the cluster has no number left.
        PoisonedKey: what is allocated to these labels is not a number of this cluster.
    """
    allocation = schema.identity_allocation(labels)
    for attempt in range(ATTEMPTS):
        found = await kv.get(allocation)
        if found is not None:
            existing = await _existing_identity(kv, cluster_id, labels, found.value)
            if existing is None:
                continue
            return existing
        number = await _candidate(kv, cluster_id, thorough=attempt > ATTEMPTS // 2)
        compares = (
            Created(allocation),
            Created(schema.identity(number)),
            Created(schema.retired_identity(number)),
        )
        operations = (
            Put(allocation, str(number).encode()),
            Put(schema.identity(number), codec.encode_identity(Identity(number, labels))),
        )
        if (await kv.txn(compares, operations)).succeeded:
            return number
    raise Conflict(f"identity of {labels} could not be allocated in {ATTEMPTS} tries: try again")


async def _allocate_block(kv: KV, cluster: Cluster, pool: Prefix, node: str) -> PodCIDR:
    length = cluster.node_prefix(pool)
    chance = random.Random(f"{node} {pool}")
    for _ in range(ATTEMPTS):
        known = [held for held in await _allocations(kv) if _within(held.item.network, pool)]
        own = next((held.item for held in known if held.item.node == node), None)
        if own is not None:
            return own
        taken = [held.item.network for held in known if held.item.node]
        network = free_block(pool, length, taken, lambda n: chance.randrange(min(n, NEAR_BLOCKS)))
        if network is None:
            raise PoolExhausted(_no_room(pool, length, len(taken)))
        block = await _claim(kv, network, node, known)
        if block is not None:
            return block
    raise Conflict(f"no block of {pool} could be claimed in {ATTEMPTS} tries: try again")


async def _claim(
    kv: KV, network: Prefix, node: str, known: Sequence[Stored[PodCIDR]]
) -> PodCIDR | None:
    """Write our name on a free block; None when somebody else did first."""
    key = schema.pod_cidr_allocation(network)
    freed = next((held for held in known if held.item.network == network), None)
    block = PodCIDR(network=network, node=node, epoch=freed.item.epoch if freed else 1)
    compare = Unchanged(key, freed.mod_revision) if freed else Created(key)
    result = await kv.txn((compare,), (Put(key, codec.encode_pod_cidr(block)),))
    return block if result.succeeded else None


async def _allocations(kv: KV) -> tuple[Stored[PodCIDR], ...]:
    """A block whose record cannot be read stops all: it must not be given twice."""
    return await list_items(kv, schema.POD_CIDR_ALLOCATIONS, codec.decode_pod_cidr)


def _within(prefix: Prefix, pool: Prefix) -> bool:
    return contains(pool, prefix.network_address)


def _no_room(pool: Prefix, length: int, nodes: int) -> str:
    blocks = 1 << (length - pool.prefixlen)
    return (
        f"PodCIDR {pool} is exhausted: its {blocks} blocks of /{length} belong to {nodes} nodes; "
        "give back those of a node that is gone with `meshnet node delete NAME`"
    )


async def _existing_identity(kv: KV, cluster_id: int, labels: LabelSet, value: bytes) -> int | None:
    """The number that labels already have, its own key written anew: that keeps garbage
    collection (mesh/identity_gc.py) from taking it before the caller's use of it is known.

    None: somebody removed or wrote a key just now.
    """
    allocation = schema.identity_allocation(labels)
    number = codec.decode_number(allocation, value)
    if not belongs_to(number, cluster_id):
        foreign = f"ID {number} does not belong to the allocation range of cluster ID {cluster_id}"
        raise PoisonedKey(allocation, foreign)
    key, encoded = schema.identity(number), codec.encode_identity(Identity(number, labels))
    pair = await kv.get(key)
    if pair is not None and pair.value != encoded:
        raise PoisonedKey(key, f"it has other labels than {allocation} says")
    as_read = Created(key) if pair is None else ValueIs(key, encoded)
    result = await kv.txn((as_read, ValueIs(allocation, value)), (Put(key, encoded),))
    return number if result.succeeded else None


async def _candidate(kv: KV, cluster_id: int, *, thorough: bool) -> int:
    """A number that is likely free; a thorough one was free a moment ago.

    Never one that was given back lately: peers may still know it as another's.
    """
    if not thorough:
        local = FIRST_LOCAL + secrets.randbelow(IDENTITIES)
        return (cluster_id << CLUSTER_SHIFT) + local
    used = {
        schema.last_of(pair.key)
        for prefix in (schema.IDENTITIES, schema.RETIRED_IDENTITIES)
        for pair in (await kv.list(prefix)).pairs
    }
    numbers = ((cluster_id << CLUSTER_SHIFT) + n for n in range(FIRST_LOCAL, LAST_LOCAL + 1))
    free = [number for number in numbers if str(number) not in used]
    if not free:
        raise PoolExhausted(
            f"all {IDENTITIES} identities of cluster id {cluster_id} are in use: use fewer "
            "different label sets"
        )
    return secrets.choice(free)
