"""`policy list` and `policy plan`, from what the agent has in its tables."""

from __future__ import annotations

import yaml

from meshnet.agent import policy_view
from meshnet.agent.why import why
from meshnet.manifests.kinds import read_manifest
from tests.support.policed import POLICY, World


async def test_the_list_says_whom_each_policy_is_about_here(world: World) -> None:
    world.apply(POLICY)
    (row,) = policy_view.policies(world.context())
    assert row["endpoints"] == ["default/web"]
    assert (row["default_deny"], row["rules"]) == (["egress", "ingress"], 2)


async def test_a_plan_names_whom_a_change_treats_otherwise_and_nobody_else(world: World) -> None:
    manifest = read_manifest(yaml.safe_load(POLICY))
    ids = {e.name: e.identity for e in world.node.endpoints.list()}
    rows = policy_view.plan(world.context(), [manifest])
    assert {row["identity"] for row in rows} == {ids["web"]}
    found = {(row["direction"], row["remote"]): (row["before"], row["after"]) for row in rows}
    assert found["ingress", "everybody else"] == (["everything"], ["nothing"])
    assert found["ingress", ids["api"]] == (["everything"], ["allow 80/tcp"])
    world.apply(POLICY)
    assert policy_view.plan(world.context(), [manifest]) == []
    wider = read_manifest(yaml.safe_load(POLICY.replace("port: 80", "port: 80, endPort: 81")))
    (row,) = policy_view.plan(world.context(), [wider])
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
    assert why(world.context(), "web", "api")["verdict"] == "denied"
    ids = {e.name: e.identity for e in world.node.endpoints.list()}
    service = read_manifest(yaml.safe_load(STORE % "api"))
    (row,) = policy_view.plan(world.context(), [service])
    assert (row["identity"], row["remote"]) == (ids["web"], ids["api"])
    assert (row["direction"], row["before"], row["after"]) == (
        "egress", ["nothing"], ["everything"],
    )  # fmt: skip
    world.apply(STORE % "api")
    allowed = why(world.context(), "web", "api")
    assert (allowed["verdict"], allowed["rules"][0]["place"]) == ("allowed", "spec.egress[0]")
    assert policy_view.plan(world.context(), [service]) == []
