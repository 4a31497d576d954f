"""Endpoints are made whole or not at all, and end once."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from meshnet.agent.endpoint_facts import EndpointRequest
from meshnet.errors import (
    AlreadyExists,
    MapFull,
    MeshnetError,
    NetlinkRefused,
    NotFound,
    PoolExhausted,
    Unreachable,
    UsageError,
)
from meshnet.model.dataplane import EndpointRow
from meshnet.model.endpoint import EndpointState
from meshnet.registry import schema
from tests.support.node import Node, process


async def make(node: Node, name: str = "web", **fields: object) -> None:
    await node.endpoints.create(EndpointRequest(name=name, **fields))  # type: ignore[arg-type]


async def test_a_ready_endpoint_is_in_the_kernel_the_maps_the_store_and_etcd(node: Node) -> None:
    await make(node, labels={"app": "web"})
    endpoint = node.endpoints.get("default", "web")
    assert endpoint.state is EndpointState.READY
    link = node.kernel.links[endpoint.host_ifname]
    row = node.dataplane.endpoints()[link.ifindex]
    assert (row.identity, row.addresses) == (endpoint.identity, endpoint.addresses)
    assert node.store.load() == [endpoint]
    for key in (schema.ip(endpoint.ipv4), schema.endpoint("east-1", endpoint.id)):
        pair = await node.kv.get(key)
        assert pair is not None and pair.lease == node.session.lease


async def test_a_deleted_endpoint_leaves_nothing(node: Node) -> None:
    await make(node)
    await node.endpoints.delete("default", "web")
    assert await node.traces() == {}


def _refuse(error: BaseException) -> Callable[..., object]:
    def refuse(*_: object, **__: object) -> object:
        raise error

    return refuse


STEPS = {
    "namespace": ("kernel", "create_netns", NetlinkRefused("create namespace", 28, "full")),
    "interface": ("kernel", "create_veth", NetlinkRefused("create veth", 16, "busy")),
    "identity": ("kv", "get", Unreachable("etcd at h:1 is unreachable")),
    "rows": ("dataplane", "attach_endpoint", MapFull("endpoints", capacity=1)),
    "file": ("store", "save", OSError(28, "No space left on device")),
    "keys": ("session", "flush", Unreachable("etcd at h:1 is unreachable")),
    "a cancelled caller": ("kernel", "create_veth", asyncio.CancelledError()),
}


@pytest.mark.parametrize("step", STEPS)
async def test_whatever_fails_nothing_is_left(
    node: Node, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, method, error = STEPS[step]
    with monkeypatch.context() as patch:
        patch.setattr(getattr(node, part), method, _refuse(error))
        with pytest.raises(type(error)):
            await make(node)
    await node.session.flush()  # as Session.run does when etcd answers again
    assert await node.traces() == {}
    for number in range(5):
        await make(node, f"again-{number}")  # every address is there to be given


async def test_a_failed_endpoint_takes_no_identity_from_its_twin(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(node, "one", labels={"app": "web"})
    with monkeypatch.context() as patch:
        patch.setattr(node.kernel, "create_veth", _refuse(NetlinkRefused("create veth", 16, "")))
        with pytest.raises(NetlinkRefused):
            await make(node, "two", labels={"app": "web"})
    await node.session.flush()
    values = (await node.kv.list(schema.IDENTITY_VALUES)).pairs
    assert [schema.last_of(pair.key) for pair in values] == ["east-1"]


async def test_what_could_not_be_unmade_is_unmade_by_the_next_pass(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(node)
    refused = NetlinkRefused("delete link", 16, "busy")
    with monkeypatch.context() as patch:
        patch.setattr(node.kernel, "delete_link", _refuse(refused))
        with pytest.raises(NetlinkRefused):
            await node.endpoints.delete("default", "web")
    await node.endpoints.reconcile()
    assert await node.traces() == {}


async def test_endpoints_whose_names_join_to_the_same_text_do_not_share_a_namespace(
    node: Node,
) -> None:
    await make(node, "c", namespace="a-b")
    await make(node, "b-c", namespace="a")
    assert len(node.kernel.netns) == 2


async def test_a_taken_name_is_refused_and_its_owner_untouched(node: Node) -> None:
    await make(node)
    before = await node.traces()
    with pytest.raises(AlreadyExists, match="default/web is taken on node east-1"):
        await make(node)
    assert await node.traces() == before


async def test_a_full_pool_refuses_and_takes_again_what_was_given_back(node: Node) -> None:
    for number in range(5):
        await make(node, f"web-{number}")
    with pytest.raises(PoolExhausted):
        await make(node, "one-more")
    await node.endpoints.delete("default", "web-3")
    await make(node, "one-more")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"netns": "/nowhere"}, UsageError),
        ({"labels": {"io.cilium.k8s": "x"}}, MeshnetError),
        ({"labels": {"a;b": "x"}}, MeshnetError),
        ({"namespace": "Not_A_Label"}, MeshnetError),
        ({"owner_pid": 2**22 + 1}, UsageError),
    ],
    ids=["no namespace there", "reserved label", "label with ;", "bad name", "owner is gone"],
)
async def test_a_bad_request_is_refused_before_anything_is_made(
    node: Node, fields: dict[str, object], error: type[MeshnetError]
) -> None:
    with pytest.raises(error):
        await make(node, "web", **fields)
    assert await node.traces() == {}


async def test_an_endpoint_ends_with_its_owner(node: Node) -> None:
    with process() as owner:
        await make(node, owner_pid=owner.pid)
        owner.send_signal(signal.SIGKILL)
        await node.settled()
    assert await node.traces() == {}


async def test_a_deletion_ends_the_owner_and_the_endpoint_is_unmade_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmade: list[str] = []
    delete_link = node.kernel.delete_link

    async def slowly(ifname: str) -> None:
        unmade.append(ifname)
        await asyncio.sleep(0.01)  # long enough for the owner's watch to come by
        await delete_link(ifname)

    with process() as owner:
        await make(node, owner_pid=owner.pid)
        ifname = node.endpoints.get("default", "web").host_ifname
        monkeypatch.setattr(node.kernel, "delete_link", slowly)
        reaping = asyncio.create_task(asyncio.to_thread(owner.wait))
        await asyncio.gather(*(node.endpoints.delete("default", "web") for _ in range(2)))
        await node.settled()
        await reaping
    assert unmade.count(ifname) == 1
    assert await node.traces() == {}


async def test_only_the_newest_owner_counts(node: Node) -> None:
    with process() as first, process() as second:
        await make(node, owner_pid=first.pid)
        await node.endpoints.adopt("default", "web", pid=second.pid, log="/var/log/web")
        first.kill()
        while len(node.tasks) > 1:
            await asyncio.sleep(0.001)
        assert node.endpoints.get("default", "web").log == "/var/log/web"
        second.kill()
        await node.settled()
    with pytest.raises(NotFound):
        node.endpoints.get("default", "web")


async def test_a_namespace_that_was_given_is_not_taken_away(node: Node, tmp_path: Path) -> None:
    given = tmp_path / "theirs"
    given.touch()
    node.kernel.netns.add(str(given))
    await make(node, netns=str(given))
    await node.endpoints.delete("default", "web")
    assert given.exists()
    assert await node.traces() == {"namespaces": [str(given)]}


async def test_the_default_route_follows_what_the_paths_take(node: Node) -> None:
    await make(node)
    endpoint = node.endpoints.get("default", "web")

    def routed() -> int | None:
        spec = node.kernel.links[endpoint.host_ifname].veth
        return spec.route_mtu if spec else None

    assert routed() == 1450
    node.endpoints.route_mtu = lambda: 1350
    await node.endpoints.reconcile()
    assert routed() == 1350
    await make(node, "late")
    assert node.endpoints.get("default", "late").state is EndpointState.READY
    await node.endpoints.reconcile()
    assert node.dataplane.endpoints().keys() == set((await node.kernel.list_veths("mesh")).values())


async def test_an_endpoint_that_is_made_during_a_full_pass_is_left_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's answer is of before, and comes when the endpoint is ready."""
    names = iter(("one", "two"))
    listed, attach, detach = (
        node.kernel.list_veths,
        node.dataplane.attach_endpoint,
        node.dataplane.detach_endpoint,
    )
    happened: list[str] = []

    async def slow(prefix: str) -> dict[str, int]:
        found = await listed(prefix)
        if (name := next(names, None)) is not None:
            await make(node, name)
        return found

    def attached(row: EndpointRow) -> None:
        happened.append(f"attached {row.endpoint_id}")
        attach(row)

    def detached(ifindex: int) -> None:
        happened.append(f"detached {ifindex}")
        detach(ifindex)

    monkeypatch.setattr(node.kernel, "list_veths", slow)
    monkeypatch.setattr(node.dataplane, "attach_endpoint", attached)
    monkeypatch.setattr(node.dataplane, "detach_endpoint", detached)
    await node.endpoints.reconcile()

    ids = [node.endpoints.get("default", name).id for name in ("one", "two")]
    assert happened == [f"attached {number}" for number in ids]
    assert {row.endpoint_id for row in node.dataplane.endpoints().values()} == set(ids)
