"""A node that is gone gives back what it held; a stolen one is renewed no more."""

from datetime import UTC, datetime, timedelta

import pytest

from meshnet.agent.departure import Departure
from meshnet.agent.expulsion import Expulsion
from meshnet.agent.mesh_view import MeshView, Tables
from meshnet.agent.start import Foundation
from meshnet.enrolment.nodes import find_revocation
from meshnet.errors import NotFound, Refused
from meshnet.model.authority import Issued
from meshnet.registry import allocator, schema, trust_codec
from tests.support.node import CLUSTER, Node, local_node


class Refusing:
    """No signer is there: etcd refuses nobody."""

    def enforced(self, serials: set[str]) -> bool:
        return not serials


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
    refusing = Refusing()
    expulsion = Expulsion(node.kv, "east", refusing, patience_s=0.3)  # type: ignore[arg-type]
    return Departure(foundation, view, node.endpoints, _nothing, expulsion, stop=lambda: None)


async def test_a_node_that_is_gone_gives_its_blocks_back(node: Node, departure: Departure) -> None:
    blocks = await allocator.allocate_pod_cidrs(node.kv, CLUSTER, "gone")
    await departure.delete_node("gone")
    assert await allocator.release_pod_cidrs(node.kv, "gone") == ()
    assert len(blocks) == 2
    assert await node.kv.get(schema.revoked("gone")) is None
    with pytest.raises(NotFound, match="node gone holds nothing in cluster east"):
        await departure.delete_node("gone")


async def test_a_revoked_node_loses_its_keys_though_it_lives(
    node: Node, departure: Departure
) -> None:
    lease = await node.kv.grant(60)
    await node.kv.put(schema.node("east", "alive"), b"{}", lease=lease)
    await node.kv.put(schema.endpoint("alive", 7), b"{}", lease=lease)

    await departure.delete_node("alive", revoke=True)

    assert await node.kv.get(schema.revoked("alive")) is not None
    assert await node.kv.get(schema.node("east", "alive")) is None
    assert await node.kv.get(schema.endpoint("alive", 7)) is None


async def test_revocation_that_etcd_does_not_enforce_is_said_to_be_half_done(
    node: Node, departure: Departure
) -> None:
    key = schema.issued("alive", "5c1f")
    issued = Issued(profile="node", not_after=datetime.now(UTC) + timedelta(days=1))
    await node.kv.put(key, trust_codec.encode_issued(issued))

    with pytest.raises(Refused, match="etcd does not refuse its certificates yet: bring a signer"):
        await departure.delete_node("alive", revoke=True)

    revocation = await find_revocation(node.kv, "alive")
    assert revocation is not None and revocation.serials == {"node": ("5c1f",), "mesh": ()}


@pytest.mark.parametrize("name", ["alive", "east-1"])
async def test_a_node_that_lives_and_this_one_are_refused(departure: Departure, name: str) -> None:
    with pytest.raises(Refused, match="run `meshnet cluster leave`"):
        await departure.delete_node(name)
