"""Every fault of a cluster's addresses is found, and a sound cluster has none."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from meshnet.logic.ipam_check import Announced, Fault, check
from meshnet.model.addressing import PodCIDR, Prefix
from meshnet.model.endpoint import IpEntry

POOLS = (ip_network("10.1.0.0/16"), ip_network("fd00:10:1::/48"))
BLOCKS = (
    PodCIDR(network=ip_network("10.1.4.0/22"), node="east-1"),
    PodCIDR(network=ip_network("fd00:10:1::4:0/112"), node="east-1"),
    PodCIDR(network=ip_network("10.1.8.0/22"), node="east-2"),
    PodCIDR(network=ip_network("10.1.12.0/22"), node="", epoch=2),
)
NODES: dict[str, tuple[Prefix, ...]] = {
    "east-1": (BLOCKS[0].network, BLOCKS[1].network),
    "east-2": (BLOCKS[2].network,),
}


def announced(address: str, node: str = "east-1", *, leased: bool = True) -> Announced:
    entry = IpEntry(
        prefix=ip_network(address),
        host=ip_address("192.0.2.1"),
        identity=65800,
        name="web",
        namespace="default",
        node=node,
    )
    return Announced(f"cilium/state/ip/v1/default/{address}", entry, leased)


SOUND = [announced("10.1.4.9"), announced("fd00:10:1::4:9"), announced("10.1.9.1", "east-2")]


def block(network: str, node: str) -> PodCIDR:
    return PodCIDR(network=ip_network(network), node=node)


def test_a_sound_cluster_has_no_finding() -> None:
    assert check(POOLS, BLOCKS, NODES, SOUND) == []


@pytest.mark.parametrize(
    ("extra", "fault", "subject"),
    [
        (block("10.9.0.0/22", "east-2"), Fault.BLOCK_OUTSIDE, "10.9.0.0/22"),
        (block("10.1.5.0/24", "east-2"), Fault.BLOCKS_OVERLAP, "10.1.5.0/24"),
        (block("10.1.16.0/22", "east-3"), Fault.OWNER_GONE, "10.1.16.0/22"),
    ],
)
def test_a_bad_block_is_named(extra: PodCIDR, fault: Fault, subject: str) -> None:
    (finding,) = check(POOLS, [*BLOCKS, extra], NODES, SOUND)
    assert (finding.id, finding.subject, finding.key) == (fault, subject, "")


def test_each_block_inside_another_is_found_whatever_lies_between() -> None:
    wide = block("10.1.16.0/20", "east-2")
    inside = [block("10.1.16.0/24", "east-1"), block("10.1.31.0/24", "east-1")]
    found = check(POOLS, [*BLOCKS, *inside, wide], NODES, SOUND)
    assert [finding.subject for finding in found] == ["10.1.16.0/24", "10.1.31.0/24"]


@pytest.mark.parametrize(("holder", "says"), [("", "nobody"), ("east-2", "node east-2")])
def test_a_node_that_uses_what_it_does_not_hold_is_named(holder: str, says: str) -> None:
    blocks = [block("10.1.4.0/22", holder), *BLOCKS[1:]]
    found = check(POOLS, blocks, NODES, [announced("10.1.9.1", "east-2")])
    assert [finding.id for finding in found] == [Fault.BLOCK_NOT_HELD]
    assert found[0].evidence == f"node east-1 uses it, and {says} holds it"


def test_a_node_that_is_down_is_a_warning_alone() -> None:
    nodes = {"east-1": NODES["east-1"]}
    (finding,) = check(POOLS, BLOCKS, nodes, SOUND)
    assert (finding.id, finding.severity) == (Fault.OWNER_GONE, "warning")


def test_an_address_outside_of_its_nodes_blocks_is_named() -> None:
    (finding,) = check(POOLS, BLOCKS, NODES, [*SOUND, announced("10.1.8.9")])
    assert (finding.id, finding.subject) == (Fault.ADDRESS_OUTSIDE, "10.1.8.9")


def test_only_a_key_that_nobody_would_delete_can_be_mended() -> None:
    gone = announced("10.1.20.1", "east-9", leased=False)
    (finding,) = check(POOLS, BLOCKS, NODES, [*SOUND, gone])
    assert (finding.id, finding.key) == (Fault.ADDRESS_ORPHANED, gone.key)


def test_what_another_than_meshnet_announced_is_left_alone() -> None:
    assert check(POOLS, BLOCKS, NODES, [announced("10.99.0.1", "", leased=False)]) == []
