"""A namespace's labels are part of who its endpoints are: a change gives them a new identity."""

from __future__ import annotations

import asyncio
import json

import pytest

from meshnet.agent.endpoint_facts import EndpointRequest
from meshnet.agent.namespaces import Namespaces
from meshnet.agent.seen import Table
from meshnet.errors import Unreachable
from meshnet.kvstore.api import Deleted
from meshnet.model.dataplane import EndpointRow
from meshnet.model.endpoint import Endpoint
from meshnet.model.identity import endpoint_labels
from meshnet.registry import codec, schema
from meshnet.registry.follow import Changes, Snapshot
from tests.support.node import Node

PROD = {"env": "prod"}


async def make(node: Node, name: str = "web", namespace: str = "shop") -> Endpoint:
    return await node.endpoints.create(
        EndpointRequest(name=name, namespace=namespace, labels={"app": name})
    )


def labels(endpoint: Endpoint, **of_namespace: str) -> str:
    return str(
        endpoint_labels(
            endpoint.labels,
            namespace=endpoint.namespace,
            cluster="east",
            namespace_labels=of_namespace,
        )
    )


async def keys(node: Node, prefix: str) -> dict[str, str]:
    return {pair.key: pair.value.decode() for pair in (await node.kv.list(prefix)).pairs}


async def relabel(node: Node, **of_shop: str) -> Endpoint:
    node.namespaces = {"shop": of_shop}
    await node.endpoints.reconcile()
    return node.endpoints.get("shop", "web")


async def test_an_endpoint_has_the_labels_its_namespace_has_when_it_is_made(node: Node) -> None:
    node.namespaces = {"shop": PROD}
    endpoint = await make(node)
    found = await keys(node, schema.identity(endpoint.identity))
    assert list(found.values()) == [labels(endpoint, env="prod")]
    assert "k8s:io.cilium.k8s.namespace.labels.env=prod;" in labels(endpoint, env="prod")
    assert "k8s:io.cilium.k8s.policy.serviceaccount=default;" in labels(endpoint)


async def test_a_change_of_labels_gives_endpoints_of_that_namespace_another_identity(
    node: Node,
) -> None:
    before, other = await make(node), await make(node, "api", namespace="default")
    after = await relabel(node, **PROD)

    assert after.identity != before.identity
    assert (after.addresses, after.id, after.state) == (before.addresses, before.id, before.state)
    link = node.kernel.links[after.host_ifname]
    assert node.dataplane.endpoints()[link.ifindex].identity == after.identity
    for address in after.addresses:
        pair = await node.kv.get(schema.ip(address))
        assert pair and codec.decode_ip_entry(pair.key, pair.value).identity == after.identity
    values = await keys(node, schema.IDENTITY_VALUES)
    assert f"{schema.IDENTITY_VALUES}{labels(after, env='prod')}/east-1" in values
    assert f"{schema.IDENTITY_VALUES}{labels(before)}/east-1" not in values, "it is let go"
    assert node.store.load()[0].identity in (after.identity, other.identity)
    assert node.endpoints.get("default", "api") is other, "no other namespace is touched"


async def test_the_number_is_there_before_an_address_names_it_and_packets_bear_it_last(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await make(node)
    watch = node.kv.watch("", after=await node.kv.revision())
    address = schema.ip(before.ipv4)
    attach = node.dataplane.attach_endpoint
    told: list[int] = []

    def note(row: EndpointRow) -> None:
        told.append(codec.decode_ip_entry(address, node.kv._pairs[address].value).identity)
        attach(row)

    monkeypatch.setattr(node.dataplane, "attach_endpoint", note)
    after = await relabel(node, **PROD)

    order: list[str] = []
    async with asyncio.timeout(5):
        while address not in order:
            for event in (await anext(watch)).events:
                gone = isinstance(event, Deleted) and event.key.startswith(schema.IPS)
                assert not gone, f"{event.key} went"
                order.append(event.key)
    await watch.aclose()
    assert order.index(schema.identity(after.identity)) < order.index(address)
    assert told == [after.identity], "others were told before the first packet bears it"


async def test_back_to_the_old_labels_is_the_old_identity(node: Node) -> None:
    before = await make(node)
    await relabel(node, **PROD)
    assert (await relabel(node)).identity == before.identity


async def test_an_agent_that_knows_no_namespace_yet_changes_nothing(node: Node) -> None:
    """After a restart the labels come a moment later than the endpoints."""
    node.namespaces = {"shop": PROD}
    before = await make(node)
    node.start_agent()
    await node.prove()
    await node.endpoints.restore()
    node.namespaces = None
    await node.endpoints.reconcile()
    node.endpoints.want_published()
    assert node.endpoints.get("shop", "web").identity == before.identity
    mine = f"{schema.IDENTITY_VALUES}{labels(before, env='prod')}/east-1"
    assert mine in node.session.keys, "its identity is still asserted by the right labels"


async def test_labels_that_changed_while_the_agent_was_down_are_made_good(node: Node) -> None:
    before = await make(node)
    node.start_agent()
    await node.prove()
    await node.endpoints.restore()
    assert (await relabel(node, **PROD)).identity != before.identity


async def test_an_outage_of_etcd_leaves_the_endpoint_as_it_is_until_it_is_over(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await make(node)
    node.namespaces = {"shop": PROD}

    async def refuse(*_: object) -> object:
        raise Unreachable("etcd at h:1 is unreachable")

    with monkeypatch.context() as broken:
        broken.setattr(node.kv, "get", refuse)
        with pytest.raises(ExceptionGroup):
            await node.endpoints.reconcile()
    assert node.endpoints.get("shop", "web") is before
    await node.endpoints.reconcile()
    assert node.endpoints.get("shop", "web").identity != before.identity


async def test_a_deleted_endpoint_leaves_nothing_under_either_identity(node: Node) -> None:
    await make(node)
    await relabel(node, **PROD)
    await node.endpoints.delete("shop", "web")
    assert await node.traces() == {}


def manifest(name: str, **of_it: str) -> tuple[str, bytes]:
    document = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": of_it},
    }
    return schema.manifest("namespace", "", name), json.dumps(document).encode()


def test_manifests_are_read_into_labels_by_namespace() -> None:
    table = Table(schema.MANIFESTS, codec.decode_manifest)
    read = Namespaces(table)
    assert not read.refresh() and read.labels_of("shop") is None, "nothing is known yet"

    key, value = manifest("shop", env="prod")
    table.apply(Snapshot(5, {key: codec.decode_manifest(key, value)}))
    assert read.refresh()
    assert not read.refresh(), "no change"
    assert (read.labels_of("shop"), read.labels_of("other")) == (PROD, {})

    table.apply(Changes(6, {key: None}))
    assert read.refresh()
    assert read.labels_of("shop") == {}


def test_a_namespace_cannot_pass_itself_off_as_another() -> None:
    forged = {"kubernetes.io/metadata.name": "kube-system"}
    made = endpoint_labels({}, namespace="shop", cluster="east", namespace_labels=forged)
    assert made.get("io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name") == "shop"
