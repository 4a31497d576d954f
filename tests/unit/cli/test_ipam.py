"""`meshnet ipam check`: silence, findings, and what can be mended."""

from __future__ import annotations

from tests.support.agent_api import FakeAgent
from tests.unit.cli.conftest import Meshnet

DOWN = {
    "id": "owner-gone",
    "severity": "warning",
    "subject": "10.1.8.0/22",
    "evidence": "node east-2 holds it, and is not there",
    "fix": "start its agent",
    "key": "",
}
ORPHAN = {
    "id": "address-orphaned",
    "severity": "error",
    "subject": "10.1.8.9",
    "evidence": "endpoint default/web of node east-9, which is not there",
    "fix": "`meshnet ipam check --fix` deletes the key",
    "key": "cilium/state/ip/v1/default/10.1.8.9",
}


def test_a_sound_cluster_is_said_to_be_sound(agent: FakeAgent, meshnet: Meshnet) -> None:
    outcome = meshnet("ipam", "check")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == "every block has its node, and every address its block\n"
    assert meshnet("ipam", "check", "-o", "json").json == []


def test_an_error_is_exit_code_1_and_a_warning_is_not(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.ipam = [DOWN]
    assert meshnet("ipam", "check").code == 0
    agent.ipam = [DOWN, ORPHAN]
    outcome = meshnet("ipam", "check", "-o", "json")
    assert (outcome.code, outcome.json) == (1, [DOWN, ORPHAN])


def test_fix_leaves_what_it_cannot_mend(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.ipam = [DOWN, ORPHAN]
    outcome = meshnet("ipam", "check", "--fix", "-o", "json")
    assert (outcome.code, outcome.json) == (0, [DOWN])
