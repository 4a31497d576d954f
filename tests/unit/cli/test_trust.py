"""`cluster ca`, `config`, plans and days left, as an operator reads them."""

from __future__ import annotations

import pytest

from tests.support.agent_api import FakeAgent
from tests.unit.cli.conftest import Meshnet


@pytest.mark.usefixtures("agent")
def test_rotation_is_shown_by_phase_authorities_and_whom_it_waits_for(meshnet: Meshnet) -> None:
    before = meshnet("cluster", "ca", "status").out
    begun = meshnet("cluster", "ca", "rotate").out
    again = meshnet("cluster", "ca", "rotate")

    assert before.splitlines()[0] == "phase stable, epoch 0"
    assert begun.splitlines()[0] == "phase announce, epoch 1"
    assert "CN=new" in begun and "CN=new" not in before
    assert begun.splitlines()[-1] == ("waiting for node east-1: it does not trust the new CAs yet")
    assert again.code == 1 and "are changing already (announce)" in again.err
    assert meshnet("cluster", "ca", "status", "-o", "json").json["phase"] == "announce"


@pytest.mark.usefixtures("agent")
def test_setting_is_read_changed_and_read_again(meshnet: Meshnet) -> None:
    assert meshnet("config", "get", "certificate_lifetime").out == "7d\n"
    assert meshnet("config", "set", "certificate_lifetime", "12h").code == 0
    assert meshnet("config", "get", "certificate_lifetime").out == "12h\n"
    assert meshnet("config", "get", "policy_default_local").out == "yes\n"
    assert meshnet("config", "set", "policy_default_local", "no").code == 0
    assert meshnet("config", "get", "policy_default_local", "-o", "json").json["value"] is False
    assert meshnet("config", "set", "policies_from", "west,north").code == 0
    assert meshnet("config", "get", "policies_from", "-o", "json").json["value"] == [
        "north",
        "west",
    ]
    assert meshnet("config", "set", "policies_from", "none").code == 0
    assert meshnet("config", "get", "policies_from", "-o", "json").json["value"] == []
    rows = {row["key"]: row["value"] for row in meshnet("config", "get", "-o", "json").json}
    assert (rows["certificate_lifetime"], rows["cluster"], rows["tunnel"]) == (
        "12h",
        "east",
        "vxlan",
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("get", "colour"), 4, "setting 'colour' does not exist: there are certificate_lifetime,"),
        (("set", "colour", "red"), 4, "setting 'colour' does not exist"),
        (("set", "id", "9"), 2, "id is decided at `cluster init` and cannot be changed"),
        (("set", "certificate_lifetime", "soon"), 2, "'soon' is not a duration, such as 7d"),
        (("set", "certificate_lifetime", "1s"), 2, "1s is out of range: 60s to 90d"),
        (("set", "policies_from", "east"), 2, "names other clusters"),
        (("set", "policies_from", "west,Nope"), 2, "cluster name 'Nope' is invalid"),
        (("set", "policy_default_local", "off"), 2, "'off' is neither yes nor no"),
        (("set", "certificate_lifetime", "91d"), 2, "91d is out of range: 60s to 90d"),
    ],
)
@pytest.mark.usefixtures("agent")
def test_setting_that_cannot_be_is_one_clear_error(
    meshnet: Meshnet, words: tuple[str, ...], code: int, said: str
) -> None:
    done = meshnet("config", *words)

    assert (done.code, said in done.err) == (code, True), done.err


def test_failed_plan_is_a_table_a_count_and_an_exit_code(
    agent: FakeAgent, meshnet: Meshnet
) -> None:
    agent.plan_fails = True

    done = meshnet("mesh", "join", "mnt1.west", "--plan")

    assert done.code == 1
    assert done.out.splitlines()[0].split() == ["CHECK", "RESULT", "EVIDENCE", "FIX"]
    assert done.out.splitlines()[1].split()[:2] == ["pod-cidr", "failed"]
    assert done.err.splitlines()[-1] == "Error: 1 of 1 checks failed: pod-cidr"


def test_status_says_how_long_the_certificates_last(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.certificates = [
        {"certificate": "mirror", "expires_at": "2026-12-01T00:00:00Z", "days_left": 2.25},
        {"certificate": "node", "expires_at": "2026-12-05T00:00:00Z", "days_left": 6.5},
    ]

    line = next(line for line in meshnet("status").out.splitlines() if "Certificates" in line)
    assert line.split(maxsplit=1)[1] == "2.2 days left (mirror)"
