"""`lab test` tells what is as expected from what is not, and says so to people and to CI."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import attrs
import pytest

from tests.support.formed import Mesh, Workload
from tests.support.lab import deployed, leftovers, meshnet
from topology.expect.model import Reach, Verdict
from topology.expect.outcome import Outcome
from topology.expect.probe import Endpoint, Prober

pytestmark = pytest.mark.lab

NAME = f"ltest-{os.getpid()}"

FILE = f"""\
name: {NAME}
topology:
  defaults:
    kind: linux
    config:
      vars:
        meshnet:
          expect:
            - run: {{node: a, command: cat /etc/hostname, says: "^a$"}}
            - run: {{node: a, command: "sh -c 'test -e /run/mark || ! touch /run/mark'"}}
            - run: {{node: a, command: cat /etc/hostname, says: elsewhere, within: 0}}
            - run: {{node: a, command: "false", within: 0}}
  nodes: {{a: {{}}}}
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "lab.clab.yml"
    file.write_text(text)
    return file


def test_outcomes_are_printed_written_for_ci_and_the_lab_is_gone(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    done = meshnet("lab", "test", str(write(tmp_path, FILE)), "--junit", str(report))
    assert done.returncode == 1, done.stderr
    good, again, other, failing = done.stdout.splitlines()
    assert good.startswith("ok  a: cat /etc/hostname")
    assert again.startswith("ok  "), "tried again until it is as expected"
    assert other.startswith("FAILED  ") and other.endswith("it says 'a'")
    assert failing.startswith("FAILED  ") and "`false` ended with 1" in failing
    assert "2 of 4 are as expected" in done.stderr
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == (NAME, "4", "2")
    assert leftovers(NAME) == []


def test_a_lab_that_is_up_is_tested_as_it_is_and_stays(tmp_path: Path) -> None:
    text = "\n".join(FILE.splitlines()[:-3]) + "\n  nodes: {a: {}}\n"
    with deployed(write(tmp_path, text), name=NAME) as lab:
        lab["a"].exec("touch /run/mark", check=True)
        done = meshnet("lab", "test", str(lab.file))
        assert done.returncode == 0, done.stderr
        lab["a"].exec("ls /run/mark", check=True)


def test_a_file_that_expects_nothing_is_the_callers_mistake(tmp_path: Path) -> None:
    file = write(tmp_path, f"name: {NAME}\ntopology:\n  nodes: {{a: {{kind: linux}}}}\n")
    done = meshnet("lab", "test", str(file))
    assert done.returncode == 2
    assert "expects nothing: write topology.defaults.config.vars.meshnet.expect" in done.stderr
    assert leftovers(NAME) == []


@pytest.fixture
def prober(mesh: Mesh, workloads: dict[str, Workload]) -> Prober:
    return Prober(
        mesh.state,
        {name: Endpoint.of(attrs.asdict(w)) for name, w in workloads.items()},
    )


def only(prober: Prober, expected: Reach) -> Outcome:
    (outcome,) = prober.check([expected])
    return outcome


def test_what_is_reached_is_reached_in_the_expected_mode_and_as_itself(
    prober: Prober,
) -> None:
    outcome = only(prober, Reach(source="web", target="db", mode="vxlan"))
    assert outcome.ok, outcome.problem
    assert outcome.name == "web to db allowed by vxlan"


def test_what_is_not_as_expected_is_told(mesh: Mesh, prober: Prober) -> None:
    native = only(prober, Reach(source="web", target="db", mode="native", within=0))
    assert native.problem == "packets from east-1 to west-1 go by vxlan, not native"
    denied = only(prober, Reach(source="web", target="db", verdict=Verdict.DENIED, within=0))
    assert denied.problem.count("answers") == 2
    web = attrs.evolve(prober.endpoints["web"], identity=4711)
    stranger = Prober(prober.lab, {**prober.endpoints, "web": web})
    unknown = only(stranger, Reach(source="web", target="db", within=0))
    assert unknown.problem == "west-1 did not see identity 4711 arrive"


def test_a_frozen_node_answers_packets_and_asks_nothing(mesh: Mesh, prober: Prober) -> None:
    mesh.lab.fault("freeze", "east-2")
    try:
        to_frozen, from_frozen = prober.check(
            [Reach(source="db", target="api", within=0), Reach(source="api", target="db", within=0)]
        )
    finally:
        mesh.lab.fault("heal")
    # its HTTP server stands still: connections are made by the kernel, answers are not
    assert "takes no TCP" in to_frozen.problem and "ping" not in to_frozen.problem
    assert from_frozen.problem == "east-2 is frozen"


def test_what_is_cut_is_lost_and_no_reason_is_counted(mesh: Mesh, prober: Prober) -> None:
    mesh.lab.fault("cut", "east-2", "west-2")
    try:
        lost = Reach(source="api", target="cache", verdict=Verdict.LOST)
        assert only(prober, lost).ok
        reason = attrs.evolve(lost, reason="policy-denied", within=0)
        assert only(prober, reason).problem == "neither node counted a drop by reason policy-denied"
        assert (
            "does not answer ping"
            in only(prober, Reach(source="api", target="cache", within=0)).problem
        )
    finally:
        mesh.lab.fault("heal")
