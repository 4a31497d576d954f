"""What policies of one cluster mean for others: those for the whole mesh close and never open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.support.formed import Mesh, eventually
from tests.support.lab import Node
from tests.support.policy_lab import Expectation, Json, PolicyLab, expectations, policy_lab

pytestmark = pytest.mark.lab

DB = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: %s
"""
FROM_CLIENTS = DB % "[{from: [{podSelector: {matchLabels: {app: client}}}]}]"
FROM_EVERYBODY = DB % "[{}]"
FROM_NOBODY = DB % "[]"
OPEN = list(expectations(["far client api > db: tcp/80 udp/5300 icmp"], passes=True))


@pytest.fixture(scope="module")
def lab(mesh: Mesh) -> Iterator[PolicyLab]:
    with policy_lab(mesh) as made:
        assert made.wrong(OPEN) == []
        yield made
        assert made.wrong(OPEN) == []


@pytest.fixture
def east(lab: PolicyLab) -> Iterator[Node]:
    """Where policies are applied; west takes them meanwhile."""
    lab.mesh["west-2"].meshnet("config", "set", "policies_from", "east")
    yield lab.mesh["east-2"]
    lab.mesh["west-2"].meshnet("config", "set", "policies_from", "none")
    for node in ("east-2", "west-2"):
        own = [each for each in stored(lab, node) if origin(each) is None]
        lab.delete(own, node=node)
    eventually(lambda: stored(lab, "west-2") == [], within_s=10)


def stored(lab: PolicyLab, node: str) -> list[Json]:
    return list(lab.client(node).get("manifests", kind="networkpolicy"))


def origin(document: Json) -> str | None:
    found: str | None = document["metadata"].get("annotations", {}).get("meshnet.io/origin")
    return found


def apply(node: Node, text: str, *words: str) -> None:
    node.path("/tmp/db.yaml").write_text(text)
    node.meshnet("apply", "--wait", *words, "-f", "/tmp/db.yaml")


def holds(lab: PolicyLab, *, allowed: str = "", denied: str = "") -> None:
    """At once or soon: another cluster follows by itself."""
    wanted: list[Expectation] = [
        *expectations([f"{allowed} > db: tcp/80 udp/5300 icmp"] if allowed else [], passes=True),
        *expectations([f"{denied} > db: tcp/80 udp/5300 icmp"] if denied else [], passes=False),
    ]
    eventually(lambda: lab.wrong(wanted) == [], within_s=20)


def test_what_is_applied_in_one_cluster_holds_in_another_that_takes_it(
    lab: PolicyLab, east: Node
) -> None:
    west = lab.mesh["west-1"]
    before = lab.drops("POLICY_DEFAULT_DENY", nodes=["west-1"])
    apply(east, FROM_CLIENTS, "--mesh")
    holds(lab, allowed="far", denied="client api other")  # a client is one of the same cluster
    after = lab.drops("POLICY_DEFAULT_DENY", nodes=["west-1"])
    assert after - before >= 3 * 3 * 2, "db's own node drops it"

    (shown,) = lab.mesh.json("west-1", "get", "netpol", "-n", "shop")
    assert origin(shown) == "east"
    assert [row["origin"] for row in lab.mesh.json("west-1", "policy", "list")] == ["east"]
    why = west.meshnet("why", "east/shop/api", "shop/db", "-o", "json", check=False)
    assert "NetworkPolicy shop/db of cluster east" in why.stdout and why.returncode == 1
    refused = west.meshnet("delete", "netpol", "db", "-n", "shop", check=False)
    assert refused.returncode == 4 and "is of cluster east: delete it there" in refused.stderr
    west.path("/tmp/db.yaml").write_text(yaml.safe_dump(shown))
    again = west.meshnet("apply", "-f", "/tmp/db.yaml", check=False)
    assert again.returncode == 2 and "is of cluster east" in again.stderr

    east.meshnet("delete", "netpol", "db", "-n", "shop")
    holds(lab, allowed="far client api")
    assert stored(lab, "west-1") == []


def test_what_another_cluster_asks_for_opens_nothing(lab: PolicyLab, east: Node) -> None:
    apply(lab.mesh["west-2"], FROM_NOBODY)
    apply(east, FROM_EVERYBODY, "--mesh")
    eventually(lambda: len(stored(lab, "west-1")) == 2, within_s=10)
    holds(lab, denied="far client api")
    apply(lab.mesh["west-2"], FROM_EVERYBODY)
    holds(lab, allowed="far client api")
    apply(east, FROM_CLIENTS, "--mesh")
    holds(lab, allowed="far", denied="client api")


def test_a_cluster_takes_nobodys_policies_unless_its_operator_said_so(
    lab: PolicyLab, east: Node
) -> None:
    apply(east, FROM_NOBODY, "--mesh")
    holds(lab, denied="far client api")
    lab.mesh["west-2"].meshnet("config", "set", "policies_from", "none")
    holds(lab, allowed="far client api")
    assert [origin(each) for each in stored(lab, "west-1")] == ["east"], "it is seen all the same"
    assert lab.mesh.json("west-1", "policy", "list") == []


OF_WEB = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: clients, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}]
"""


def test_a_setting_says_whom_a_selector_without_a_cluster_means(lab: PolicyLab) -> None:
    """A client of east may ask web; `far`, a client of west, as the setting says."""
    east, west = lab.mesh["east-2"], lab.mesh["west-1"]
    manifest = yaml.safe_load(OF_WEB)
    others = [
        *expectations(["client > web: tcp/80"], passes=True),
        *expectations(["api > web: tcp/80"], passes=False),
    ]
    shut, opened = (
        [*others, *expectations(["far > web: tcp/80 udp/5300 icmp"], passes=passes)]
        for passes in (False, True)
    )
    lab.apply([manifest])
    try:
        assert lab.wrong(shut) == []
        east.meshnet("config", "set", "policy_default_local", "no")
        eventually(lambda: lab.wrong(opened) == [], within_s=60)
        assert west.meshnet("config", "get", "policy_default_local").stdout == "yes\n"
    finally:
        east.meshnet("config", "set", "policy_default_local", "yes")
        eventually(lambda: lab.wrong(shut) == [], within_s=60)
        lab.delete([manifest])
