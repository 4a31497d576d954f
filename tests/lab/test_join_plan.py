"""`--plan` looks at everything, says it, and changes nothing; a join applies a clean plan once.

a (172.30.7.1) is cluster east; b (172.30.7.2) wants in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.formed import two_hosts
from tests.support.lab import Node

pytestmark = pytest.mark.lab


REFUSE_ENROLMENT = (
    "nft add table ip away && "
    "nft add chain ip away out '{ type filter hook output priority 0; }' && "
    "nft add rule ip away out tcp dport 4244 reject with tcp reset"
)


DROP_VXLAN = REFUSE_ENROLMENT.replace("tcp dport 4244 reject with tcp reset", "udp dport 8472 drop")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    with two_hosts("plan", tmp_path_factory.mktemp("plan")) as lab:
        lab["a"].meshnet("cluster", "init", "east", "--id", "1")
        yield lab["a"], lab["b"]


@pytest.fixture
def a(hosts: tuple[Node, Node]) -> Node:
    return hosts[0]


@pytest.fixture
def b(hosts: tuple[Node, Node]) -> Iterator[Node]:
    """In no cluster."""
    yield hosts[1]
    hosts[1].meshnet("cluster", "leave", "--force")


def node_token(a: Node) -> str:
    return a.meshnet("cluster", "token").stdout.strip()


def planned(node: Node, *words: str) -> tuple[int, dict[str, Any], dict[str, tuple[str, str]]]:
    """Exit code, the answer, and what failed: check -> (evidence, fix)."""
    done = node.meshnet(*words, "--plan", "-o", "json", check=False)
    answer = json.loads(done.stdout)
    failed = {
        check["check"]: (check["evidence"], check["fix"])
        for check in answer["checks"]
        if not check["ok"]
    }
    return done.returncode, answer, failed


def test_clean_plan_says_what_was_seen_and_leaves_the_token_good(a: Node, b: Node) -> None:
    token = node_token(a)

    code, answer, failed = planned(b, "cluster", "join", token)

    assert (code, failed) == (0, {})
    assert (answer["underlay"], answer["joined"]) == ("eth1", False)
    reason = "the only interface through which signer 172.30.7.1:4244 answers"
    assert answer["underlay_reason"] == reason
    names = [check["check"] for check in answer["checks"]]
    assert {"kernel", "host", "underlay", "certificates", "name", "pod-cidr", "clock"} <= {*names}
    table = b.meshnet("cluster", "join", token, "--plan").stdout.splitlines()
    assert table[0].split() == ["CHECK", "RESULT", "EVIDENCE", "FIX"]
    assert [line.split()[:2] for line in table[1:]] == [[name, "ok"] for name in names]
    b.meshnet("cluster", "join", token)

    counters = json.loads(a.meshnet("map", "dump", "counters", "-o", "json").stdout)
    assert {row["counter"]: row["packets"] for row in counters}["questions"] > 0
    drops = json.loads(a.meshnet("drops", "-o", "json").stdout)
    assert [row for row in drops if row["packets"]] == [], "nobody has sent anything wrong"


def test_same_join_again_has_nothing_to_do(a: Node, b: Node) -> None:
    token = node_token(a)
    b.meshnet("cluster", "join", token)
    agent = b.path("/run/meshnet/agent.pid").read_text()

    again = b.meshnet("cluster", "join", token)

    assert again.stderr.splitlines()[-1] == "this host is that node already: nothing to do"
    assert b.path("/run/meshnet/agent.pid").read_text() == agent


def test_plan_names_every_collision_at_once(a: Node, b: Node) -> None:
    token = node_token(a)
    b.exec("ip addr add 10.1.9.1/24 dev eth1", check=True)
    try:
        code, _, failed = planned(b, "cluster", "join", token, "--node", "a")
    finally:
        b.exec("ip addr del 10.1.9.1/24 dev eth1", check=True)

    assert code == 1
    assert failed["name"][0] == "node 'a' is live in cluster 'east'"
    assert failed["pod-cidr"] == (
        "underlay address 10.1.9.1 lies in PodCIDR 10.1.0.0/16",
        "give the host an address outside, or choose another interface by --underlay",
    )
    for directory in ("/etc/meshnet", "/var/lib/meshnet"):
        left = b.path(directory)
        assert not left.is_dir() or not list(left.iterdir()), "nothing was written"


def test_signer_that_is_away_is_a_line_of_the_plan_and_an_exit_code_of_the_join(
    a: Node, b: Node
) -> None:
    token = node_token(a)
    b.exec(["sh", "-c", REFUSE_ENROLMENT], check=True)
    try:
        code, _, failed = planned(b, "cluster", "join", token)
        joined = b.meshnet("cluster", "join", token, check=False)
    finally:
        b.exec("nft delete table ip away", check=True)

    assert code == 1
    assert failed["underlay"][0].startswith("no signer answers through eth1 (172.30.7.1:4244: ")
    assert joined.returncode == 5
    assert "no signer of cluster 'east' answers" in joined.stderr.splitlines()[-1]


def test_own_and_deaf_interfaces_are_not_chosen(a: Node, b: Node) -> None:
    for command in (
        "ip link add deaf type veth peer name deaf-peer",
        "ip addr add 192.0.2.9/24 dev deaf",
        "ip link set deaf up",
        "ip link set deaf-peer up",
        "ip link add mesh7 type veth peer name mesh7-peer",
        "ip addr add 192.0.2.129/25 dev mesh7",
        "ip link set mesh7 up",
    ):
        b.exec(command, check=True)
    try:
        code, answer, _ = planned(b, "cluster", "join", node_token(a))
        named = planned(b, "cluster", "join", node_token(a), "--underlay", "deaf")
        own = b.meshnet(
            "cluster", "join", node_token(a), "--plan", "--underlay", "mesh7", check=False
        )
    finally:
        b.exec("ip link del deaf", check=True)
        b.exec("ip link del mesh7", check=True)

    assert (code, answer["underlay"]) == (0, "eth1")
    assert "underlay" in named[2]
    assert own.returncode == 1
    assert "underlay 'mesh7' is no interface here" in own.stdout


def test_tunnel_that_passes_one_way_only_is_seen_by_its_direction(a: Node, b: Node) -> None:
    token = node_token(a)
    for node, evidence in (
        (b, "no vxlan datagram from 172.30.7.2 reaches 172.30.7.1:8472"),
        (a, "no vxlan datagram from 172.30.7.1 reaches 172.30.7.2:8472"),
    ):
        node.exec(["sh", "-c", DROP_VXLAN], check=True)
        try:
            code, _, failed = planned(b, "cluster", "join", token)
            joined = b.meshnet("cluster", "join", token, check=False)
        finally:
            node.exec("nft delete table ip away", check=True)
        fix = "open 8472/udp between the hosts, in both directions"
        assert (code, failed) == (1, {"tunnel-port": (evidence, fix)})
        assert (joined.returncode, joined.stderr.splitlines()[-1]) == (
            1,
            f"Error: {evidence}: {fix}",
        )
    assert not b.path("/etc/meshnet/meshnet.toml").exists()


def test_path_mtu_is_what_passes_both_ways(a: Node, b: Node) -> None:
    token = node_token(a)
    try:
        b.exec("ip link set eth1 mtu 1400", check=True)
        _, answer, narrow = planned(b, "cluster", "join", token)
        b.exec("ip link set eth1 mtu 1300", check=True)
        _, _, too_narrow = planned(b, "cluster", "join", token)
    finally:
        b.exec("ip link set eth1 mtu 1500", check=True)

    assert narrow == {}
    evidence = {check["check"]: check["evidence"] for check in answer["checks"]}["path-mtu"]
    assert evidence == ("1400 bytes pass both ways (our interface: 1400), so endpoints get 1350")
    assert too_narrow == {
        "path-mtu": (
            "1300 bytes pass, IPv6 endpoints need 1330",
            "raise the MTU of the hops between the hosts",
        )
    }


def test_mesh_plan_tries_the_tunnel_between_the_clusters(a: Node, b: Node) -> None:
    b.meshnet("cluster", "init", "west", "--id", "2")
    token = a.meshnet("mesh", "invite").stdout.strip()

    code, answer, failed = planned(b, "mesh", "join", token)
    b.exec(["sh", "-c", DROP_VXLAN], check=True)
    try:
        _, _, cut = planned(b, "mesh", "join", token)
        joined = b.meshnet("mesh", "join", token, check=False)
    finally:
        b.exec("nft delete table ip away", check=True)

    assert (code, failed) == (0, {})
    evidence = {check["check"]: check["evidence"] for check in answer["checks"]}
    assert evidence["tunnel-port"] == (
        "vxlan from 172.30.7.2 reaches 172.30.7.1:8472, vxlan from 172.30.7.1 reaches "
        "172.30.7.2:8472"
    )
    assert evidence["path-mtu"].startswith("1500 bytes pass both ways")
    assert list(cut) == ["tunnel-port"]
    assert joined.returncode == 1
    for node in (a, b):
        assert json.loads(node.meshnet("mesh", "status", "-o", "json").stdout) == []
