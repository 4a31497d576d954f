"""What a lab file may expect, how wrong expectations are told, and the words of JUnit."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from meshnet.errors import ConfigError, LabError
from topology import clab, formation, reach
from topology.expect import model
from topology.expect.model import EndpointSpec, Reach, Refused, Run, Survive, Verdict
from topology.expect.outcome import Outcome, junit
from topology.model import RuntimeKind
from topology.state import LabState, NodeState

HEAD = """\
name: l
topology:
  defaults:
    kind: linux
    config:
      vars:
        meshnet:
"""
NODES = "  nodes: {a: {}, b: {}}\n"


def expectations(tmp_path: Path, text: str) -> model.Expectations:
    file = tmp_path / "l.clab.yml"
    indented = "".join(f"          {line}\n" for line in text.splitlines())
    file.write_text(HEAD + indented + NODES)
    return model.read(clab.read(file))


def test_every_form_of_expectation_is_read(tmp_path: Path) -> None:
    found = expectations(
        tmp_path,
        """\
endpoints:
  web: {node: a, labels: {tier: 1}}
  db: {node: b}
expect:
  - reach: {from: web, to: all, verdict: denied, reason: policy, within: 3}
  - survive: {fault: cut a b, within: 5, reach: [{from: web, to: db}],
      run: [{node: b, command: date}], then: [{from: all, to: db}]}
  - refused: {join: west, to: east, says: overlap}
  - run: {node: a, command: ip route, says: default}
""",
    )
    assert found.endpoints == {
        "web": EndpointSpec(node="a", labels={"tier": "1"}),
        "db": EndpointSpec(node="b"),
    }
    assert [one.reach or one.survive or one.refused or one.run for one in found.expect] == [
        Reach(source="web", target="all", verdict=Verdict.DENIED, reason="policy", within=3),
        Survive(
            fault="cut a b",
            within=5,
            reach=(Reach(source="web", target="db"),),
            run=(Run(node="b", command="date"),),
            then=(Reach(source="all", target="db"),),
        ),
        Refused(join="west", to="east", says="overlap"),
        Run(node="a", command="ip route", says="default"),
    ]
    assert found.apart == {frozenset({"east", "west"})}


def test_a_file_without_expectations_expects_nothing(tmp_path: Path) -> None:
    file = tmp_path / "l.clab.yml"
    file.write_text("name: l\ntopology:\n  nodes: {a: {kind: linux}}\n")
    assert model.read(clab.read(file)) == model.Expectations()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpoints: {web: {node: z}}", "endpoint 'web' is on node 'z': there are a, b"),
        ("expect: [{reach: {from: web, to: all}}]", "reach names endpoint 'web': there are all"),
        ("expect: [{run: {node: z, command: true}}]", "run is on node 'z': there are a, b"),
        (
            "expect: [{survive: {fault: heal, within: 1, run: [{node: z, command: date}]}}]",
            "run is on node 'z': there are a, b",
        ),
        ("expect: [{reach: {from: all}}]", "required field missing @ .*to"),
        (
            "expect: [{reach: {from: all, to: all, verdict: maybe}}]",
            "'maybe' is not a valid Verdict",
        ),
        ("expect: [{reech: {}}]", "unknown field reech"),
        ("services: {}", "unknown field services"),
        ("expect: [{}]", "it is one of reach, survive, refused and run"),
    ],
)
def test_a_wrong_expectation_is_refused_by_file_and_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"l\.clab\.yml:7: expectations: .*{message}"):
        expectations(tmp_path, text)


def test_junit_counts_and_explains_what_failed() -> None:
    suite = ElementTree.fromstring(
        junit("l", [Outcome(name="good", seconds=1.5), Outcome(name="bad", problem="a < b & c")])
    )
    assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("2", "1", "1.500")
    good, bad = suite.findall("testcase")
    assert good.find("failure") is None
    failure = bad.find("failure")
    assert failure is not None and failure.get("message") == "a < b & c"


def test_what_the_script_of_an_endpoint_says_is_read() -> None:
    found = reach.read(
        "10.0.0.1 rtt min/avg/max/mdev = 0.1/0.25/0.4/0.1 ms tcp\n"
        "10.0.0.2 rtt min/avg/max/mdev = 0.1/0.25/0.4/0.1 ms \n"
        "fd00::3  tcp\nfd00::4  \n"
    )
    assert {address: (r.rtt_ms, r.tcp) for address, r in found.items()} == {
        "10.0.0.1": (0.25, True),
        "10.0.0.2": (0.25, False),
        "fd00::3": (None, True),
        "fd00::4": (None, False),
    }
    assert found["10.0.0.1"].whole and found["fd00::4"].not_at_all


def lab(**labels: dict[str, str]) -> LabState:
    nodes = {name: NodeState(kind="linux", env={}, labels=said) for name, said in labels.items()}
    return LabState(name="l", file="/l", runtime=RuntimeKind.NETNS, nodes=nodes)


def test_labels_say_how_a_cluster_is_founded() -> None:
    said = {
        "meshnet.cluster": "east",
        "meshnet.routing": "native",
        "meshnet.underlay": "lo0",
        "meshnet.pod-cidr": "10.7.0.0/16, fd00:7::/48",
    }
    east, west = formation.members(lab(a=said, b={"meshnet.cluster": "west"}))
    assert east.options == (
        "--routing", "native", "--tunnel", "vxlan", "--underlay", "lo0",
        "--pod-cidr", "10.7.0.0/16", "--pod-cidr", "fd00:7::/48",
    )  # fmt: skip
    assert west.options == ("--routing", "tunnel", "--tunnel", "vxlan", "--underlay", "eth1")
    with pytest.raises(LabError, match="differ in their label"):
        one, two = ({"meshnet.cluster": "east", "meshnet.cluster-id": i} for i in ("1", "2"))
        formation.members(lab(a=one, b=two))
