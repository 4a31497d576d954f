"""Whom a mesh does not take in, and by which words: every refusal leaves both sides alone.

a is cluster east (id 1); b founds a cluster for each test and tries to join.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.support.formed import two_hosts
from tests.support.lab import Node

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    with two_hosts("tokens", tmp_path_factory.mktemp("tokens")) as lab:
        lab["a"].meshnet("cluster", "init", "east", "--id", "1")
        yield lab["a"], lab["b"]


@pytest.fixture
def a(hosts: tuple[Node, Node]) -> Iterator[Node]:
    """Cluster east, which nobody has joined when the test ends."""
    yield hosts[0]
    for remote in json.loads(hosts[0].meshnet("mesh", "status", "-o", "json", check=False).stdout):
        hosts[0].meshnet("mesh", "leave", remote["name"])


@pytest.fixture
def b(hosts: tuple[Node, Node]) -> Iterator[Node]:
    """In no cluster."""
    yield hosts[1]
    hosts[1].meshnet("cluster", "leave", "--force")


def invitation(node: Node, *options: str) -> str:
    return node.meshnet("mesh", "invite", *options).stdout.strip()


def remotes(node: Node) -> list[str]:
    done = node.meshnet("mesh", "status", "-o", "json", check=False)
    return [remote["name"] for remote in json.loads(done.stdout)]


def refusal(node: Node, token: str) -> tuple[int, str]:
    """Of `mesh join`, which stores nothing here: exit code and the line on stderr."""
    done = node.meshnet("mesh", "join", token, check=False)
    assert done.stdout == ""
    assert remotes(node) == []
    return done.returncode, done.stderr.splitlines()[-1]


def test_a_cluster_does_not_join_itself(a: Node) -> None:
    assert refusal(a, invitation(a)) == (
        1,
        "Error: both clusters are named 'east': set one of them up under another name",
    )


def test_a_cluster_of_our_own_name_is_refused(a: Node, b: Node) -> None:
    b.meshnet("cluster", "init", "east", "--id", "2")
    assert refusal(b, invitation(a)) == (
        1,
        "Error: both clusters are named 'east': set one of them up under another name",
    )
    assert remotes(a) == []


def test_a_cluster_of_our_own_id_is_refused(a: Node, b: Node) -> None:
    b.meshnet("cluster", "init", "west", "--id", "1", "--pod-cidr", "10.77.0.0/16")
    assert refusal(b, invitation(a)) == (
        1,
        "Error: clusters 'west' and 'east' both have id 1: set one of them up with another --id",
    )
    assert remotes(a) == []


def test_a_cluster_whose_pod_cidr_overlaps_is_refused_by_plan_and_join_alike(
    a: Node, b: Node
) -> None:
    b.meshnet("cluster", "init", "west", "--id", "2", "--pod-cidr", "10.1.128.0/17")
    token = invitation(a)
    reason = (
        "PodCIDR 10.1.128.0/17 of cluster 'west' overlaps PodCIDR 10.1.0.0/16 of cluster 'east'"
    )
    planned = b.meshnet("mesh", "join", token, "--plan", check=False)
    assert planned.returncode == 1
    assert reason in planned.stdout
    assert refusal(b, token) == (1, f"Error: {reason}")
    assert remotes(a) == []


def test_a_token_that_is_damaged_expired_or_for_somebody_else_is_refused(a: Node, b: Node) -> None:
    brief, made = invitation(a, "--ttl", "10s"), time.monotonic()
    b.meshnet("cluster", "init", "west", "--id", "2")
    token = invitation(a)
    assert refusal(b, token[:-9]) == (
        1,
        f"Error: join token of {len(token) - 9} characters is truncated or damaged: copy it again",
    )
    assert refusal(b, "hello") == (1, "Error: not a join token: it must start with 'mnt1.'")
    for_nodes = a.meshnet("cluster", "token").stdout.strip()
    assert refusal(b, for_nodes) == (
        1,
        "Error: token of cluster 'east' is for `meshnet cluster join`, not for `meshnet mesh join`",
    )
    code, line = refusal(b, invitation(a, "--for", "north"))
    assert (code, line.partition(" is for ")[2]) == (1, "cluster 'north', not for 'west'")
    time.sleep(max(0.0, made + 11 - time.monotonic()))
    assert refusal(b, brief) == (
        1,
        "Error: token is unknown to cluster 'east' or has expired: ask for a new one",
    )
    assert remotes(a) == []


def test_a_token_joins_one_cluster_once(a: Node, b: Node) -> None:
    token = invitation(a)
    b.meshnet("cluster", "init", "west", "--id", "2")
    b.meshnet("mesh", "join", token, "--plan")
    assert (remotes(a), remotes(b)) == ([], [])
    b.meshnet("mesh", "join", token)
    b.meshnet("mesh", "status", "--wait", "--timeout", "20s")
    assert (remotes(a), remotes(b)) == (["west"], ["east"])

    b.meshnet("cluster", "leave", "--force")
    b.meshnet("cluster", "init", "north", "--id", "3")
    code, line = refusal(b, token)
    assert code == 1
    assert line.endswith("has been used already: ask for one of your own")
