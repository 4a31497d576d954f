"""Claims: one owner each, the same answer to who asks twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from meshnet.errors import Conflict, PoisonedKey, PoolExhausted, Unreachable
from meshnet.kvstore.api import Compare, Operation, TxnResult
from meshnet.kvstore.memory import MemoryKV
from meshnet.model.addressing import PodCIDR, parse_prefix
from meshnet.model.cluster import Cluster, default_pod_cidrs
from meshnet.model.identity import FIRST_LOCAL, LabelSet
from meshnet.registry import allocator, codec, schema
from meshnet.registry.allocator import allocate_identity, allocate_pod_cidrs, release_pod_cidrs

CLUSTER = Cluster(name="c", id=7, pod_cidrs=default_pod_cidrs(7))
SMALL = Cluster(name="c", id=7, pod_cidrs=(parse_prefix("10.7.0.0/22"),), node_prefix_v4=24)
LABELS = LabelSet.of({"k8s:app": "web"})


@pytest.fixture
def kv() -> MemoryKV:
    return MemoryKV()


class Deaf(MemoryKV):
    """Writes, and then loses the answer, the first time."""

    deaf = True

    async def txn(self, compares: Sequence[Compare], then: Sequence[Operation]) -> TxnResult:
        result = await super().txn(compares, then)
        if self.deaf:
            self.deaf = False
            raise Unreachable("etcd at h:1 is unreachable: no answer in time")
        return result


async def test_a_node_gets_a_block_of_each_pool(kv: MemoryKV) -> None:
    v4, v6 = await allocate_pod_cidrs(kv, CLUSTER, "n1")
    assert v4.network.prefixlen == 22 and v4.network.subnet_of(CLUSTER.pod_cidrs[0])  # type: ignore[arg-type]
    assert v6.network.prefixlen == 112 and v6.network.subnet_of(CLUSTER.pod_cidrs[1])  # type: ignore[arg-type]
    assert (v4.node, v4.epoch) == ("n1", 1)
    stored = await kv.get(schema.pod_cidr_allocation(v4.network))
    assert stored is not None and stored.value == b'{"node":"n1","epoch":1}' and not stored.lease


async def test_a_node_that_comes_back_gets_its_own(kv: MemoryKV) -> None:
    first = await allocate_pod_cidrs(kv, CLUSTER, "n1")
    await allocate_pod_cidrs(kv, CLUSTER, "n2")
    revision = await kv.revision()
    assert await allocate_pod_cidrs(kv, CLUSTER, "n1") == first
    assert await kv.revision() == revision


async def test_a_lost_answer_costs_no_block() -> None:
    deaf = Deaf()
    with pytest.raises(Unreachable):
        await allocate_pod_cidrs(deaf, SMALL, "n1")
    (block,) = await allocate_pod_cidrs(deaf, SMALL, "n1")
    assert block.node == "n1"
    assert len((await deaf.list(schema.POD_CIDR_ALLOCATIONS)).pairs) == 1


async def test_blocks_never_overlap_and_the_pool_says_when_it_is_full(kv: MemoryKV) -> None:
    rows = await asyncio.gather(*(allocate_pod_cidrs(kv, SMALL, f"n{n}") for n in range(4)))
    assert {str(block.network) for (block,) in rows} == {f"10.7.{n}.0/24" for n in range(4)}
    with pytest.raises(PoolExhausted) as caught:
        await allocate_pod_cidrs(kv, SMALL, "n5")
    assert str(caught.value) == (
        "PodCIDR 10.7.0.0/22 is exhausted: its 4 blocks of /24 belong to 4 nodes; give back "
        "those of a node that is gone with `meshnet node delete NAME`"
    )


async def test_a_released_block_has_a_higher_epoch_for_its_next_owner(kv: MemoryKV) -> None:
    for n in range(4):
        await allocate_pod_cidrs(kv, SMALL, f"n{n}")
    (released,) = await release_pod_cidrs(kv, "n2")
    assert await release_pod_cidrs(kv, "n2") == ()
    (again,) = await allocate_pod_cidrs(kv, SMALL, "n9")
    assert again == PodCIDR(network=released.network, node="n9", epoch=2)


async def test_an_unreadable_allocation_stops_allocating(kv: MemoryKV) -> None:
    await kv.put(schema.POD_CIDR_ALLOCATIONS + "10.7.0.0/24", b"?")
    with pytest.raises(PoisonedKey, match=r"pod-cidrs/10\.7\.0\.0/24: not JSON"):
        await allocate_pod_cidrs(kv, SMALL, "n1")


async def test_equal_labels_have_one_number_and_it_is_the_clusters(kv: MemoryKV) -> None:
    numbers = await asyncio.gather(*(allocate_identity(kv, 7, LABELS) for _ in range(8)))
    assert len(set(numbers)) == 1
    assert numbers[0] >> 16 == 7 and numbers[0] & 0xFFFF >= FIRST_LOCAL
    other = await allocate_identity(kv, 7, LabelSet.of({"k8s:app": "db"}))
    assert other != numbers[0]
    pairs = (await kv.list(schema.IDENTITIES)).pairs
    assert {pair.value for pair in pairs} == {b"k8s:app=web;", b"k8s:app=db;"}


async def test_a_lost_answer_costs_no_number() -> None:
    deaf = Deaf()
    with pytest.raises(Unreachable):
        await allocate_identity(deaf, 7, LABELS)
    number = await allocate_identity(deaf, 7, LABELS)
    assert (await deaf.get(schema.identity(number))) is not None
    assert len((await deaf.list(schema.IDENTITIES)).pairs) == 1


async def test_a_number_whose_key_was_removed_is_put_back(kv: MemoryKV) -> None:
    number = await allocate_identity(kv, 7, LABELS)
    await kv.delete(schema.identity(number))
    assert await allocate_identity(kv, 7, LABELS) == number
    found = await kv.get(schema.identity(number))
    assert found is not None and found.value == b"k8s:app=web;"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"x", "expected a number, got b'x'"),
        (b"65800", "ID 65800 does not belong to the allocation range of cluster ID 7"),
    ],
)
async def test_an_allocation_that_is_no_number_of_ours_is_poisoned(
    kv: MemoryKV, value: bytes, reason: str
) -> None:
    key = schema.identity_allocation(LABELS)
    await kv.put(key, value)
    with pytest.raises(PoisonedKey) as caught:
        await allocate_identity(kv, 7, LABELS)
    assert str(caught.value) == f"{key}: {reason}"


async def test_a_number_that_others_labels_have_is_poisoned(kv: MemoryKV) -> None:
    number = await allocate_identity(kv, 7, LABELS)
    await kv.put(schema.identity(number), b"k8s:app=evil;")
    with pytest.raises(PoisonedKey, match="it has other labels than meshnet/v1/alloc/identities/"):
        await allocate_identity(kv, 7, LABELS)


async def test_the_last_free_number_is_found_and_then_there_is_none(
    kv: MemoryKV, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocator, "LAST_LOCAL", FIRST_LOCAL + 3)
    monkeypatch.setattr(allocator, "IDENTITIES", 4)
    sets = [LabelSet.of({"k8s:app": f"a{n}"}) for n in range(5)]
    numbers = [await allocate_identity(kv, 7, labels) for labels in sets[:4]]
    assert sorted(numbers) == [(7 << 16) + FIRST_LOCAL + n for n in range(4)]
    with pytest.raises(PoolExhausted) as caught:
        await allocate_identity(kv, 7, sets[4])
    assert str(caught.value) == (
        "all 4 identities of cluster id 7 are in use: use fewer different label sets"
    )


async def test_losing_every_race_is_a_conflict() -> None:
    class Unlucky(MemoryKV):
        async def txn(self, compares: Sequence[Compare], then: Sequence[Operation]) -> TxnResult:
            return TxnResult(False, 1)

    with pytest.raises(Conflict, match=r"identity of k8s:app=web; could not be allocated in 32"):
        await allocate_identity(Unlucky(), 7, LABELS)
    with pytest.raises(Conflict, match=r"no block of 10\.7\.0\.0/22 could be claimed in 32 tries"):
        await allocate_pod_cidrs(Unlucky(), SMALL, "n1")


def test_what_is_encoded_free_is_decoded_free() -> None:
    free = PodCIDR(network=parse_prefix("10.7.0.0/24"), node="", epoch=4)
    key = schema.pod_cidr_allocation(free.network)
    assert codec.decode_pod_cidr(key, codec.encode_pod_cidr(free)) == free
