"""A remote is read where its nodes are now, not only where they were when it joined."""

from meshnet.agent.service import gateways
from meshnet.model.addressing import parse_address
from meshnet.model.node import Node
from meshnet.model.remote import Remote

JOINED = ("172.31.0.21:4243", "172.31.0.22:4243")
REMOTE = Remote(name="west", id=2, mesh_ca="", pod_cidrs=(), gateways=JOINED)


def node(name: str, address: str) -> Node:
    return Node(name=name, cluster="west", cluster_id=2, addresses=(parse_address(address),))


def test_before_anything_is_known_of_its_nodes_the_pinned_gateways_are_asked() -> None:
    assert gateways(REMOTE, []) == JOINED


def test_a_node_that_came_later_is_asked_and_one_that_went_is_asked_last() -> None:
    now = [node("west-2", "172.31.0.22"), node("west-3", "fd31::23")]
    expected = ("172.31.0.22:4243", "[fd31::23]:4243", "172.31.0.21:4243")
    assert gateways(REMOTE, now) == expected
