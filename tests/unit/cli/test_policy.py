"""`policy`, `why`, `endpoint label` and `endpoint audit`: words, exit codes, bad calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.agent_api import FakeAgent
from tests.unit.cli.conftest import Meshnet

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {}}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "web.yaml").write_text(POLICY)
    return str(tmp_path / "web.yaml")


def test_plan_says_by_its_exit_code_whether_anybody_is_treated_otherwise(
    agent: FakeAgent, meshnet: Meshnet, file: str
) -> None:
    planned = meshnet("policy", "plan", "-f", file)
    assert planned.code == 1
    assert "everything" in planned.out and "nothing" in planned.out
    meshnet("apply", "-f", file)
    assert meshnet("policy", "plan", "-f", file).code == 0
    assert meshnet("policy", "list", "-o", "json").json[0]["name"] == "web"


def test_why_answers_with_rules_and_exit_codes(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.add("web")
    agent.add("client")
    allowed = meshnet("why", "client", "web", "--port", "80/tcp")
    assert allowed.code == 0
    assert "allow by NetworkPolicy default/web spec.ingress[0]" in allowed.out
    denied = meshnet("why", "world", "web", "-o", "json")
    assert denied.code == 1
    assert {"verdict", "direction", "rules", "missing", "path", "seen"} <= set(denied.json)
    assert denied.json["missing"]
    assert meshnet("why", "nobody", "web").code == 4


def test_why_says_what_it_does_not_know(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.add("web")
    agent.add("far")
    unknown = meshnet("why", "world", "world", "-o", "json")
    assert (unknown.code, unknown.json["verdict"]) == (4, "unknown")
    half = meshnet("why", "far", "web")
    assert half.code == 0
    assert "egress of west/default/far: ask in cluster west" in half.out


def test_labels_of_a_live_endpoint_change(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.add("web", labels={"app": "web", "old": "1"})
    changed = meshnet("endpoint", "label", "web", "tier=gold", "old-", "-o", "json")
    assert changed.json["labels"] == {"app": "web", "tier": "gold"}
    for words, message in (
        (("tier",), "has no '='"),
        (("a=1", "a-"), "both set and taken away"),
        (("io.cilium.x=1",), "is reserved"),
        ((), "missing argument"),
    ):
        refused = meshnet("endpoint", "label", "web", *words)
        assert refused.code == 2, words
        assert message.lower() in refused.err.lower()
    assert meshnet("endpoint", "label", "nobody", "a=b").code == 4


def test_audit_is_switched(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.add("web")
    assert meshnet("endpoint", "audit", "web").code == 0
    assert agent.endpoints["default", "web"]["audit"] is True
    assert meshnet("endpoint", "audit", "web", "--off").code == 0
    assert agent.endpoints["default", "web"]["audit"] is False
