"""Blocks for nodes, addresses for endpoints."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.errors import PoolExhausted
from meshnet.logic.ipam import AddressPool, free_block
from meshnet.model.addressing import PodCIDR, overlaps, parse_address, parse_prefix


def pool_of(text: str) -> AddressPool:
    return AddressPool(PodCIDR(network=parse_prefix(text), node="n1"))


@given(seed=st.integers(), length=st.integers(20, 28), count=st.integers(1, 20))
def test_blocks_lie_in_their_pool_and_never_overlap(seed: int, length: int, count: int) -> None:
    pool = parse_prefix("10.1.0.0/20")
    chance = random.Random(seed)
    taken = [parse_prefix("10.1.3.0/25"), parse_prefix("10.9.0.0/16"), parse_prefix("fd00::/64")]
    for _ in range(count):
        block = free_block(pool, length, taken, chance.randrange)
        if block is None:
            break
        assert block.prefixlen == length
        assert block.subnet_of(pool)  # type: ignore[arg-type]  # same family
        assert not any(overlaps(block, other) for other in taken)
        taken.append(block)


@given(seed=st.integers())
def test_a_pool_is_given_out_to_the_last_block(seed: int) -> None:
    pool, chance = parse_prefix("10.1.0.0/24"), random.Random(seed)
    taken = []
    while (block := free_block(pool, 28, taken, chance.randrange)) is not None:
        taken.append(block)
    assert sorted(taken) == list(pool.subnets(new_prefix=28))


def test_every_free_block_can_be_picked() -> None:
    pool = parse_prefix("10.1.0.0/24")
    taken = [parse_prefix("10.1.0.64/27")]
    picked = {free_block(pool, 27, taken, lambda n, i=index: i) for index in range(7)}  # type: ignore[misc]
    assert picked == set(pool.subnets(new_prefix=27)) - set(taken)


def test_a_block_that_fits_no_hole_is_none() -> None:
    taken = [parse_prefix(f"10.1.0.{n}/28") for n in range(0, 256, 32)]
    assert free_block(parse_prefix("10.1.0.0/24"), 27, taken, lambda n: 0) is None


def test_a_huge_ipv6_pool_costs_nothing() -> None:
    pool = parse_prefix("fd00:10:1::/48")
    last = free_block(pool, 112, [parse_prefix("fd00:10:1::/112")], lambda n: n - 1)
    assert last == parse_prefix("fd00:10:1:ffff:ffff:ffff:ffff:0/112")


def test_an_ipv6_pool_with_small_numbers_stays_ipv6() -> None:
    assert free_block(parse_prefix("::/96"), 112, [], lambda n: 0) == parse_prefix("::/112")


@pytest.mark.parametrize(
    ("cidr", "expected"),
    [
        ("10.1.0.0/29", [f"10.1.0.{n}" for n in range(2, 7)]),
        ("fd00::/120", [f"fd00::{n:x}" for n in range(2, 256)]),
    ],
)
def test_all_but_network_gateway_and_broadcast_is_given(cidr: str, expected: list[str]) -> None:
    pool = pool_of(cidr)
    assert pool.free == len(expected) == pool.cidr.capacity
    assert [str(pool.allocate()) for _ in expected] == expected
    assert pool.free == 0


def test_a_full_pool_says_what_to_do() -> None:
    pool = pool_of("10.1.0.0/29")
    for _ in range(5):
        pool.allocate()
    with pytest.raises(PoolExhausted) as caught:
        pool.allocate()
    assert str(caught.value) == (
        "PodCIDR 10.1.0.0/29 of node 'n1' is full: all 5 addresses are in use; delete endpoints "
        "here or run the new one on another node"
    )


def test_an_address_given_back_rests_for_a_whole_round() -> None:
    pool = pool_of("10.1.0.0/29")
    first = pool.allocate()
    pool.release(first)
    assert [str(pool.allocate()) for _ in range(5)] == [
        "10.1.0.3",
        "10.1.0.4",
        "10.1.0.5",
        "10.1.0.6",
        "10.1.0.2",
    ]


def test_addresses_found_in_use_are_not_given() -> None:
    pool = pool_of("10.1.0.0/29")
    for text in ("10.1.0.2", "10.1.0.4", "10.1.0.1", "10.9.0.1", "fd00::1"):
        pool.take(parse_address(text))
    assert [str(pool.allocate()) for _ in range(3)] == ["10.1.0.3", "10.1.0.5", "10.1.0.6"]


@given(st.lists(st.booleans(), max_size=200), st.integers())
def test_no_address_is_ever_given_twice(steps: list[bool], seed: int) -> None:
    pool, chance = pool_of("10.1.0.0/28"), random.Random(seed)
    used: list[object] = []
    for allocate in steps:
        if allocate and pool.free:
            address = pool.allocate()
            assert address not in used
            used.append(address)
        elif used:
            pool.release(used.pop(chance.randrange(len(used))))  # type: ignore[arg-type]
    assert pool.free == pool.cidr.capacity - len(used)
