"""`policy list`, `policy plan` and `why`, from what the agent has in its tables."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from meshnet.agent import policy_view
from meshnet.agent.context import Context
from meshnet.agent.endpoint_facts import EndpointRequest
from meshnet.errors import NotFound, UsageError
from meshnet.manifests.kinds import read_manifest
from tests.support.node import Node
from tests.support.policed import World

API = 65536 + 700
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 80}]}]
  egress: [{to: [{ipBlock: {cidr: 198.51.100.0/24}}]}]
"""


@pytest.fixture
async def world(tmp_path: Path) -> World:
    node = Node(tmp_path)
    await node.prove()
    made = World(node)
    for name, app in (("web", "web"), ("api", "api"), ("other", "other")):
        endpoint = await node.endpoints.create(EndpointRequest(name=name, labels={"app": app}))
        made.identity(endpoint.identity, app=app)
    return made


def context(world: World) -> Context:
    node = world.node
    fake = SimpleNamespace(
        view=node.view,
        enforcement=node.enforcement,
        endpoints=node.endpoints,
        dataplane=node.dataplane,
        local=node.endpoints._local,
    )
    return cast(Context, fake)


def why(world: World, source: str, destination: str, port: str = "80/tcp") -> Any:
    return policy_view.why(context(world), source, destination, port)


async def test_why_names_the_rule_that_allows_and_the_one_that_is_missing(world: World) -> None:
    assert why(world, "other", "web")["verdict"] == "allowed"
    world.apply(POLICY)
    allowed = why(world, "api", "web")
    assert allowed["verdict"] == "allowed"
    (rule,) = allowed["rules"]
    assert (rule["policy"], rule["place"]) == ("NetworkPolicy default/web", "spec.ingress[0]")
    assert [step["hook"] for step in allowed["path"]] == ["from_endpoint", "deliver_local"]
    for source, port in (
        ("other", "80/tcp"),
        ("api", "81/tcp"),
        ("api", "8/icmp"),
        ("host", "80/tcp"),
    ):
        denied = why(world, source, "web", port)
        assert (denied["verdict"], denied["direction"]) == ("denied", "ingress"), source
        assert denied["missing"] == "no rule of NetworkPolicy default/web allows it"


async def test_why_takes_addresses_and_entities(world: World) -> None:
    world.apply(POLICY)
    web = world.node.endpoints.get("default", "web")
    assert why(world, "default/api", str(web.ipv4))["verdict"] == "allowed"
    assert why(world, "web", "198.51.100.9")["verdict"] == "allowed"
    denied = why(world, "east/default/web", "203.0.113.1")
    assert (denied["verdict"], denied["direction"]) == ("denied", "egress")
    assert why(world, "web", "world")["verdict"] == "denied", "the world as such is more than it"
    with pytest.raises(NotFound, match="'nobody' is no endpoint"):
        why(world, "nobody", "web")
    with pytest.raises(UsageError, match="80/quic"):
        why(world, "api", "web", "80/quic")


async def test_the_list_says_whom_each_policy_is_about_here(world: World) -> None:
    world.apply(POLICY)
    (row,) = policy_view.policies(context(world))
    assert row["endpoints"] == ["default/web"]
    assert (row["default_deny"], row["rules"]) == (["egress", "ingress"], 2)


async def test_a_plan_names_whom_a_change_treats_otherwise_and_nobody_else(world: World) -> None:
    manifest = read_manifest(yaml.safe_load(POLICY))
    ids = {e.name: e.identity for e in world.node.endpoints.list()}
    rows = policy_view.plan(context(world), [manifest])
    assert {row["identity"] for row in rows} == {ids["web"]}
    found = {(row["direction"], row["remote"]): (row["before"], row["after"]) for row in rows}
    assert found["ingress", "everybody else"] == (["everything"], ["nothing"])
    assert found["ingress", ids["api"]] == (["everything"], ["allow 80/tcp"])
    world.apply(POLICY)
    assert policy_view.plan(context(world), [manifest]) == []
    wider = read_manifest(yaml.safe_load(POLICY.replace("port: 80", "port: 80, endPort: 81")))
    (row,) = policy_view.plan(context(world), [wider])
    assert (row["remote"], row["after"]) == (ids["api"], ["allow 80-81/tcp"])


TO_SERVICE = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: out}
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress: [{toServices: [{k8sService: {serviceName: store}}]}]
"""
STORE = """
apiVersion: v1
kind: Service
metadata: {name: store}
spec: {selector: {app: %s}, ports: [{port: 80}]}
"""


async def test_a_service_that_policies_name_is_planned_and_explained_as_one(world: World) -> None:
    world.apply(TO_SERVICE)
    assert why(world, "web", "api")["verdict"] == "denied"
    ids = {e.name: e.identity for e in world.node.endpoints.list()}
    service = read_manifest(yaml.safe_load(STORE % "api"))
    (row,) = policy_view.plan(context(world), [service])
    assert (row["identity"], row["remote"]) == (ids["web"], ids["api"])
    assert (row["direction"], row["before"], row["after"]) == (
        "egress", ["nothing"], ["everything"],
    )  # fmt: skip
    world.apply(STORE % "api")
    allowed = why(world, "web", "api")
    assert (allowed["verdict"], allowed["rules"][0]["place"]) == ("allowed", "spec.egress[0]")
    assert policy_view.plan(context(world), [service]) == []
