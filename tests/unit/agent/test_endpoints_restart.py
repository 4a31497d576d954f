"""Endpoints outlive their agent, and the full pass repairs what others broke."""

from pathlib import Path

import attrs
import pytest

from meshnet.agent.endpoint_facts import EndpointRequest
from meshnet.errors import NetlinkRefused
from meshnet.model.addressing import PodCIDR, parse_prefix
from meshnet.model.endpoint import EndpointState
from meshnet.model.kernel import VethSpec
from meshnet.registry import schema
from tests.support.node import Node, process


async def make(node: Node, name: str, **fields: object) -> None:
    await node.endpoints.create(EndpointRequest(name=name, **fields))  # type: ignore[arg-type]


async def restart(node: Node) -> None:
    node.start_agent()
    await node.ownership.prove()
    await node.endpoints.restore()
    node.endpoints.want_published()
    await node.session.flush()
    await node.endpoints.reconcile()


async def test_a_restart_changes_nothing_of_a_live_endpoint(node: Node) -> None:
    await make(node, "web", labels={"app": "web"})
    before = await node.traces()
    await restart(node)
    assert await node.traces() == before
    pair = await node.kv.get(schema.ip(node.endpoints.get("default", "web").ipv4))
    assert pair is not None and pair.lease == node.session.lease, "it hangs on the new lease"


async def test_after_a_restart_no_address_or_number_is_given_twice(node: Node) -> None:
    await make(node, "one")
    await make(node, "two")
    await restart(node)
    await make(node, "three")
    endpoints = node.endpoints.list()
    assert len({endpoint.ipv4 for endpoint in endpoints}) == 3
    assert len({endpoint.id for endpoint in endpoints}) == 3


async def test_an_owner_that_ended_without_an_agent_takes_its_endpoint_along(node: Node) -> None:
    with process() as owner:
        await make(node, "web", owner_pid=owner.pid)
        node.start_agent()
    await restart(node)
    assert await node.traces() == {}


async def test_an_adopted_endpoint_still_ends_with_its_owner(node: Node) -> None:
    with process() as owner:
        await make(node, "web", owner_pid=owner.pid)
        await restart(node)
        owner.kill()
        await node.settled()
    assert await node.traces() == {}


async def test_an_endpoint_that_was_half_made_goes(node: Node) -> None:
    await make(node, "web")
    made = node.endpoints.get("default", "web")
    node.store.save(attrs.evolve(made, state=EndpointState.CREATING))
    await restart(node)
    assert await node.traces() == {}


async def test_an_endpoint_of_a_block_that_changed_hands_goes(node: Node) -> None:
    await make(node, "web")
    node.start_agent((PodCIDR(network=parse_prefix("10.1.8.0/29"), node="east-1"),))
    await node.endpoints.restore()
    node.endpoints.want_published()
    await node.endpoints.reconcile()
    assert await node.traces() == {}


async def test_one_endpoint_that_cannot_be_attached_holds_up_no_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(node, "bad")
    await make(node, "good")
    bad, good = (node.endpoints.get("default", name) for name in ("bad", "good"))
    for endpoint in (bad, good):
        await node.kernel.delete_link(endpoint.host_ifname)
    create_veth = node.kernel.create_veth

    async def refuse_one(spec: VethSpec) -> object:
        if spec.host_ifname == bad.host_ifname:
            raise NetlinkRefused("create veth", 16, "busy")
        return await create_veth(spec)

    with monkeypatch.context() as patch:
        patch.setattr(node.kernel, "create_veth", refuse_one)
        with pytest.raises(ExceptionGroup) as caught:
            await restart(node)
        assert caught.group_contains(NetlinkRefused)
        assert good.host_ifname in node.kernel.links
    await node.endpoints.reconcile()
    assert bad.host_ifname in node.kernel.links


async def test_a_full_pass_removes_interfaces_of_ours_that_belong_to_nobody(node: Node) -> None:
    await make(node, "web")
    before = await node.traces()
    made = node.endpoints.get("default", "web")
    for ifname in ("mesh77", "meshuplink"):
        node.kernel.links[ifname] = attrs.evolve(
            node.kernel.links[made.host_ifname], ifname=ifname, ifindex=700
        )
    await node.endpoints.reconcile()
    assert sorted(node.kernel.links) == [made.host_ifname, "meshuplink"], "the last is not ours"
    del node.kernel.links["meshuplink"]
    assert await node.traces() == before


async def test_a_full_pass_makes_a_missing_interface_anew(node: Node) -> None:
    await make(node, "web")
    made = node.endpoints.get("default", "web")
    await node.kernel.delete_link(made.host_ifname)
    await node.endpoints.reconcile()
    (row,) = node.dataplane.endpoints().values()
    assert row.ifindex == node.kernel.links[made.host_ifname].ifindex
    assert row.identity == made.identity


async def test_a_full_pass_writes_missing_rows_again(node: Node) -> None:
    await make(node, "web")
    before = node.dataplane.endpoints()
    node.dataplane.detach_endpoint(*before)
    await node.endpoints.reconcile()
    assert node.dataplane.endpoints() == before


async def test_an_endpoint_whose_namespace_vanished_goes(node: Node, tmp_path: Path) -> None:
    given = tmp_path / "theirs"
    given.touch()
    node.kernel.netns.add(str(given))
    await make(node, "web", netns=str(given))
    given.unlink()
    node.kernel.netns.clear()
    await node.endpoints.reconcile()
    assert await node.traces() == {}
