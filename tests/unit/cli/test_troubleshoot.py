"""`mesh troubleshoot`: a line a rung, and an exit code that says whether all hold."""

from __future__ import annotations

from typing import Any

from tests.support.agent_api import FakeAgent
from tests.unit.cli.conftest import Meshnet


def rung(name: str, ok: bool | None, **changes: str) -> dict[str, Any]:
    empty = dict.fromkeys(("tried", "evidence", "cause", "fix"), "")
    return {"cluster": "west", "rung": name, "ok": ok, **empty, **changes}


def test_a_ladder_that_holds_exits_0(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.rungs = [rung("DNS", True, evidence="addresses, no name"), rung("TCP", True)]

    done = meshnet("mesh", "troubleshoot")

    assert done.code == 0
    assert done.out.splitlines()[1].split()[:3] == ["west", "DNS", "ok"]


def test_a_broken_rung_exits_1_with_its_evidence_and_fix(
    agent: FakeAgent, meshnet: Meshnet
) -> None:
    agent.rungs = [
        rung("TCP", False, evidence="192.0.2.9:4243: refused", fix="start the agent there"),
        rung("TLS", None),
    ]

    done = meshnet("mesh", "troubleshoot", "west")

    assert done.code == 1
    broken, above = done.out.splitlines()[1:]
    assert "FAILED" in broken and "192.0.2.9:4243: refused" in broken
    assert broken.endswith("start the agent there")
    assert "not tried" in above
    assert meshnet("mesh", "troubleshoot", "west", "-o", "json").json == agent.rungs


def test_a_cluster_that_is_no_remote_exits_4_and_no_remote_at_all_0(
    agent: FakeAgent, meshnet: Meshnet
) -> None:
    assert meshnet("mesh", "troubleshoot", "north").code == 4
    assert meshnet("mesh", "troubleshoot", "No").code == 2
    done = meshnet("mesh", "troubleshoot")
    assert (done.code, done.out) == (0, "")
    assert "no other cluster" in done.err
    assert meshnet("mesh", "troubleshoot", "-o", "json").out == "[]\n"
