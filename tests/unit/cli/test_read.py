"""What the reading commands print, as tables and as JSON that others rely on (cli.md)."""

from __future__ import annotations

import pytest
import yaml

from tests.support.agent_api import FakeAgent, remote
from tests.unit.cli.conftest import Meshnet


def test_json_is_the_agents_answer_unchanged(agent: FakeAgent, meshnet: Meshnet) -> None:
    assert meshnet("status", "-o", "json").json == agent.get_status()
    assert meshnet("mesh", "status", "-o", "json").json == agent.get_mesh()


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (
            "endpoint list",
            "name namespace cluster node id state identity labels ipv4 ipv6",
        ),
        ("identity list", "number cluster labels"),
        ("node list", "name cluster addresses pod_cidrs"),
        ("map list", "name entries max_entries"),
        ("drops", "reason direction packets bytes"),
        ("cluster token list", "id kind expires_at"),
    ],
)
def test_lists_have_the_contracts_keys_in_json_and_yaml(
    command: str, keys: str, agent: FakeAgent, meshnet: Meshnet
) -> None:
    agent.add("web")
    agent.drops = [{"reason": "SPOOFED", "direction": "egress", "packets": 2, "bytes": 99}]
    meshnet("cluster", "token")
    rows = meshnet(*command.split(), "-o", "json").json
    assert rows
    for row in rows:
        assert set(keys.split()) <= set(row)
    assert yaml.safe_load(meshnet(*command.split(), "-o", "yaml").out) == rows


def test_table_is_aligned_under_upper_case_headers(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.add("web", labels={"app": "web", "a": "1"})
    agent.add("database", namespace="production")
    assert meshnet("endpoint", "list", "-o", "wide").out == (
        "NAMESPACE    NAME       CLUSTER   NODE     STATE   IDENTITY   IPV4       IPV6"
        "           ID   LABELS\n"
        "default      web        east      east-1   ready   65793      10.1.4.2   fd00:10:1::2"
        "   1    a=1,app=web\n"
        "production   database   east      east-1   ready   65794      10.1.4.3   fd00:10:1::3"
        "   2    -\n"
    )


def test_empty_list_is_a_header_or_an_empty_array(agent: FakeAgent, meshnet: Meshnet) -> None:
    assert meshnet("drops").out == "REASON   DIRECTION   PACKETS   BYTES   MEANS\n"
    assert meshnet("drops", "-o", "json").out == "[]\n"


def test_endpoint_list_reaches_as_far_as_asked(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.add("web")
    agent.elsewhere = [agent.endpoints["default", "web"] | {"name": "far", "cluster": "west"}]

    def names(*flags: str) -> list[str]:
        return [row["name"] for row in meshnet("endpoint", "list", *flags, "-o", "json").json]

    assert names() == ["web"]
    assert names("--all-clusters") == ["web", "far"]
    assert names("-n", "production") == []


def test_status_of_a_node_that_is_not_ready_exits_1_with_the_worst_first(
    agent: FakeAgent, meshnet: Meshnet
) -> None:
    agent.ready = False
    agent.problems = [
        {"id": "MN-MTU-001", "severity": "warning", "message": "path MTU is 1400", "fix": ""},
        {"id": "MN-ETCD-001", "severity": "error", "message": "etcd is away", "fix": "start it"},
    ]
    outcome = meshnet("status")
    assert outcome.code == 1
    assert outcome.out.splitlines()[:4] == [
        "east-1 in east: not ready",
        "ERROR MN-ETCD-001: etcd is away",
        "  fix: start it",
        "WARNING MN-MTU-001: path MTU is 1400",
    ]


def test_status_wait_times_out_with_what_is_missing(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.ready = False
    agent.problems = [{"id": "X", "severity": "error", "message": "etcd is away", "fix": ""}]
    outcome = meshnet("status", "--wait", "--timeout", "1ms")
    assert (outcome.code, outcome.out) == (124, "")
    assert outcome.err == "Error: not ready after 0.001 s: etcd is away\n"


def test_mesh_status_is_0_without_remotes_and_1_when_one_is_not_ready(
    agent: FakeAgent, meshnet: Meshnet
) -> None:
    assert meshnet("mesh", "status").code == 0
    agent.remotes = [remote(), remote("south", 3, ready=False, error="gateway refused us")]
    outcome = meshnet("mesh", "status")
    assert outcome.code == 1
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["CLUSTER", "south", "west"]
    waited = meshnet("mesh", "status", "--wait", "--timeout", "0s")
    assert waited.code == 124
    assert "cluster south is not ready (gateway refused us)" in waited.err
    agent.remotes = []
    assert meshnet("mesh", "status", "-o", "json").out == "[]\n"
    assert meshnet("mesh", "status").code == 0


def test_one_object_is_shown_a_line_a_field(agent: FakeAgent, meshnet: Meshnet) -> None:
    assert meshnet("node", "show", "west-1").out == (
        "Node        west-1\nCluster     west\nAddresses   192.0.2.11\nPodCIDRs    10.2.4.0/22\n"
    )
    assert meshnet("identity", "show", "65800", "-o", "json").json["cluster"] == "east"


def test_map_dump_has_a_column_for_every_field(agent: FakeAgent, meshnet: Meshnet) -> None:
    assert meshnet("map", "dump", "ipcache").out.splitlines()[0].split() == [
        "PREFIX",
        "IDENTITY",
        "NODE",
    ]


def test_node_delete_forgets_it(agent: FakeAgent, meshnet: Meshnet) -> None:
    assert meshnet("node", "delete", "east-2").code == 0
    assert "east-2" not in meshnet("node", "list").out


def test_without_a_terminal_there_is_no_colour(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.ready = False
    agent.add("web")
    for command in ("status", "endpoint list", "node show nope"):
        outcome = meshnet(*command.split())
        assert "\x1b" not in outcome.out + outcome.err
