"""A node hands out addresses only while its PodCIDRs are provably its own."""

import pytest

from meshnet.agent.ownership import PROOF_SHARE, RECLAIM_S, Ownership
from meshnet.errors import AllocationError
from meshnet.kvstore.memory import MemoryKV
from meshnet.model.addressing import PodCIDR, parse_prefix
from meshnet.registry import codec, schema

MINE = PodCIDR(network=parse_prefix("10.1.4.0/22"), node="east-1", epoch=3)


async def _stored(block: PodCIDR) -> MemoryKV:
    kv = MemoryKV()
    await kv.put(schema.pod_cidr_allocation(block.network), codec.encode_pod_cidr(block))
    return kv


async def test_no_address_before_the_first_proof() -> None:
    ownership = Ownership(await _stored(MINE), (MINE,))
    with pytest.raises(AllocationError, match="has not confirmed this node's PodCIDRs yet"):
        ownership.require()
    await ownership.prove()
    ownership.require()


async def test_no_address_when_the_proof_is_older_than_nine_tenths_of_a_day() -> None:
    now = 1000.0
    ownership = Ownership(await _stored(MINE), (MINE,), clock=lambda: now)
    await ownership.prove()
    now += RECLAIM_S * PROOF_SHARE - 1
    ownership.require()
    now += 2
    with pytest.raises(AllocationError, match="for 21 hours"):
        ownership.require()


@pytest.mark.parametrize(
    ("node", "epoch"), [("east-2", 4), ("east-1", 4)], ids=["another owner", "a later epoch"]
)
async def test_no_address_from_a_block_that_changed_hands(node: str, epoch: int) -> None:
    theirs = PodCIDR(network=MINE.network, node=node, epoch=epoch)
    ownership = Ownership(await _stored(theirs), (MINE,))
    await ownership.prove()
    with pytest.raises(AllocationError, match=rf"belongs to node {node}, epoch {epoch}"):
        ownership.require()
