"""Hosts enter a cluster and leave it by the real commands, whole or not at all.

a (172.30.9.1) ── br-member ── b (172.30.9.2)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Lab, Node, deployed

pytestmark = pytest.mark.lab

CLAB = """
name: member
topology:
  kinds:
    linux: {image: "meshnet:latest"}
  nodes:
    br-member: {kind: bridge}
    a: {kind: linux, exec: ["ip addr add 172.30.9.1/24 dev eth1"]}
    b: {kind: linux, exec: ["ip addr add 172.30.9.2/24 dev eth1"]}
  links:
    - endpoints: ["a:eth1", "br-member:a"]
    - endpoints: ["b:eth1", "br-member:b"]
"""

OF_MESHNET = """
ls -A /etc/meshnet /var/lib/meshnet 2>/dev/null | grep -v : | grep .
ls -d /run/meshnet /sys/fs/bpf/meshnet /run/netns/* 2>/dev/null
find /sys/fs/cgroup -maxdepth 2 -type d -name meshnet
ip -br link | grep -v -e '^lo ' -e '^eth1@'
ip route show table main | grep 'proto 109'
ps -eo args= | grep -e '[/]etcd ' -e '[m]eshnet.cli.main agent'
true
"""
"""Prints whatever of meshnet is on a host, but for the agent's log."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("member") / "member.clab.yml"
    file.write_text(CLAB)
    with deployed(file) as lab:
        yield lab


@pytest.fixture
def a(lab: Lab) -> Iterator[Node]:
    yield lab["a"]
    lab["a"].meshnet("cluster", "leave", "--force")


@pytest.fixture
def b(lab: Lab) -> Iterator[Node]:
    yield lab["b"]
    lab["b"].meshnet("cluster", "leave", "--force")


def left_on(node: Node) -> str:
    return node.exec(["sh", "-c", OF_MESHNET], check=True).stdout


def token_of(node: Node) -> str:
    return node.meshnet("cluster", "token").stdout.strip()


def refusal(node: Node, *command: str) -> tuple[int, str]:
    """Exit code and last line of what is expected to fail."""
    done = node.meshnet(*command, check=False)
    return done.returncode, done.stderr.splitlines()[-1]


def test_two_hosts_enter_a_cluster_and_nothing_is_left_when_they_leave(a: Node, b: Node) -> None:
    made = json.loads(a.meshnet("cluster", "init", "east", "--id", "9", "-o", "json").stdout)
    assert (made["cluster"], made["id"], made["node"]) == ("east", 9, "a")
    assert a.meshnet("status").returncode == 0
    assert refusal(a, "cluster", "init", "west") == (
        1,
        "Error: this host is node a of cluster east already: `meshnet status` shows it; to start "
        "anew run `meshnet cluster leave` first",
    )

    token = token_of(a)
    before = left_on(b)
    b.meshnet("cluster", "join", token, "--plan")
    assert left_on(b) == before == ""
    b.meshnet("cluster", "join", token)
    nodes = json.loads(a.meshnet("node", "list", "-o", "json").stdout)
    assert [node["name"] for node in nodes] == ["a", "b"]

    assert refusal(a, "cluster", "leave") == (
        1,
        "Error: node a runs the etcd of cluster east, which b would lose: run `meshnet cluster "
        "leave` there first, or give --force here",
    )
    b.meshnet("run", "--detach", "--name", "web", "--", "sleep", "600")
    b.meshnet("cluster", "leave")
    assert left_on(b) == ""
    a.meshnet("cluster", "leave")
    assert left_on(a) == ""


def test_a_token_is_good_for_one_node_of_a_free_name(a: Node, b: Node) -> None:
    a.meshnet("cluster", "init", "east", "--id", "9")
    token = token_of(a)
    code, line = refusal(b, "cluster", "join", token, "--node", "a")
    assert (code, line) == (
        1,
        "Error: node 'a' is live in cluster 'east': choose another name with --node, or run "
        "`meshnet node delete a` first",
    )
    assert refusal(b, "cluster", "join", token[:-9])[0] == 1
    invitation = a.meshnet("mesh", "invite").stdout.strip()
    assert refusal(b, "cluster", "join", invitation) == (
        1,
        "Error: token of cluster 'east' is for `meshnet mesh join`, not for `meshnet cluster join`",
    )
    assert left_on(b) == ""
    b.meshnet("cluster", "join", token)
    b.meshnet("cluster", "leave", "--force")
    code, line = refusal(b, "cluster", "join", token)
    assert code == 1
    assert "has been used already: ask for one of your own" in line


def test_an_init_that_fails_takes_back_all_it_made(a: Node) -> None:
    occupied = "import socket, time; s = socket.create_server(('', 4244)); print(flush=True)"
    script = (
        f'python3 -c "{occupied}; time.sleep(30)" & sleep 0.5; '
        "meshnet cluster init east; code=$?; kill $!; exit $code"
    )
    done = a.exec(["bash", "-c", script])
    assert done.returncode == 1, done.stderr
    assert "Error: the agent did not start: " in done.stderr
    assert left_on(a) == ""


def test_an_etcd_that_is_away_or_of_another_ca_is_unreachable(a: Node, b: Node) -> None:
    certificate = (
        "cd /tmp && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
        "-keyout key -out crt -subj /CN=other"
    )
    b.exec(["sh", "-c", certificate], check=True)
    files = ["--etcd-ca", "/tmp/crt", "--etcd-cert", "/tmp/crt", "--etcd-key", "/tmp/key"]
    external = ["cluster", "init", "west", "--etcd", "https://172.30.9.1:2379", *files]
    assert refusal(b, *external) == (
        5,
        "Error: etcd at 172.30.9.1:2379 is unreachable: connection refused: is it running?",
    )
    a.meshnet("cluster", "init", "east", "--id", "9")
    assert refusal(b, *external) == (
        5,
        "Error: etcd at 172.30.9.1:2379 is unreachable: TLS verification failed: our CA did not "
        "sign its certificate",
    )
    assert left_on(b) == ""


def test_a_cluster_lives_in_an_etcd_that_was_there_and_only_one(a: Node, b: Node) -> None:
    a.meshnet("cluster", "init", "east", "--id", "9")
    pki = "/var/lib/meshnet/pki"
    b.exec(["mkdir", "-p", "/tmp/pki"], check=True)
    for name in ("node-ca.crt", "node.crt", "node.key"):
        source, target = a.path(f"{pki}/{name}"), b.path(f"/tmp/pki/{name}")
        Path(target).write_bytes(Path(source).read_bytes())
    files = {"ca": "node-ca.crt", "cert": "node.crt", "key": "node.key"}
    flags = [
        word for flag, name in files.items() for word in (f"--etcd-{flag}", f"/tmp/pki/{name}")
    ]
    assert refusal(b, "cluster", "init", "west", "--etcd", "172.30.9.1:2379", *flags) == (
        1,
        "Error: etcd at 172.30.9.1:2379 holds cluster east already: join it with `meshnet cluster "
        "join TOKEN`, or name another etcd",
    )
    assert left_on(b) == ""
