"""A node that is gone gives back what it held; a stolen one is renewed no more."""

import pytest

from meshnet.agent.departure import Departure
from meshnet.agent.mesh_view import MeshView, Tables
from meshnet.agent.start import Foundation
from meshnet.errors import NotFound, Refused
from meshnet.registry import allocator, schema
from tests.support.node import CLUSTER, Node, local_node


async def _nothing() -> None:
    return None


@pytest.fixture
def departure(node: Node) -> Departure:
    local = local_node()
    foundation = Foundation(
        netlink=node.kernel,
        kv=node.kv,
        local=local,
        dataplane=node.dataplane,
        vxlan_ifindex=3,
        etcd=None,
    )
    view = MeshView(local, Tables.of(CLUSTER))
    view.tables.nodes.items[schema.node("east", "alive")] = local.as_node()
    return Departure(foundation, view, node.endpoints, _nothing, stop=lambda: None)


async def test_a_node_that_is_gone_gives_its_blocks_back(node: Node, departure: Departure) -> None:
    blocks = await allocator.allocate_pod_cidrs(node.kv, CLUSTER, "gone")
    await departure.delete_node("gone")
    assert await allocator.release_pod_cidrs(node.kv, "gone") == ()
    assert len(blocks) == 2
    assert await node.kv.get(schema.revoked("gone")) is None
    with pytest.raises(NotFound, match="node gone holds nothing in cluster east"):
        await departure.delete_node("gone")


async def test_a_revoked_node_is_renewed_no_more_even_while_it_lives(
    node: Node, departure: Departure
) -> None:
    with pytest.raises(Refused, match="its certificates are renewed no more, but node alive"):
        await departure.delete_node("alive", revoke=True)
    assert await node.kv.get(schema.revoked("alive")) is not None


@pytest.mark.parametrize("name", ["alive", "east-1"])
async def test_a_node_that_lives_and_this_one_are_refused(departure: Departure, name: str) -> None:
    with pytest.raises(Refused, match="run `meshnet cluster leave`"):
        await departure.delete_node(name)
