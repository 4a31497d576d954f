"""A node dies as by a power cut: what the others know of it outlives it, and not for long.

lease 30 s ── hold 30 s ── gone: at 30..60 s after the last keep-alive, 75 s at the latest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.formed import Mesh, Workload, eventually, formed

pytestmark = pytest.mark.lab

OTHERS = ("east-1", "west-1", "west-2")
HOLD_S = 30.0
GONE_S = 75.0


@pytest.fixture(scope="module")
def mortal() -> Iterator[Mesh]:
    with formed("dead") as mesh:
        mesh.start("east-1", "web")
        mesh.start("east-2", "api")
        mesh.start("west-1", "db")
        yield mesh


def traces(mesh: Mesh, lost: Workload) -> dict[str, list[str]]:
    """Where on each other node the lost endpoint is: lists and maps; with its state in lists."""
    lists = mesh.each("endpoint", "list", "--all-clusters", nodes=OTHERS)
    nodes = mesh.each("node", "list", nodes=OTHERS)
    ipcaches = mesh.each("map", "dump", "ipcache", nodes=OTHERS)
    node_rows = mesh.each("map", "dump", "nodes", nodes=OTHERS)
    return {
        node: [
            *(f"list: {row['state']}" for row in lists[node] if row["name"] == lost.name),
            *("node" for row in nodes[node] if row["name"] == lost.node),
            *("ipcache" for row in ipcaches[node] if row["address"] in (lost.ipv4, lost.ipv6)),
            *("nodes" for row in node_rows[node] if row["address"] == "172.31.0.12"),
        ]
        for node in OTHERS
    }


def test_a_dead_nodes_endpoints_are_stale_for_the_hold_and_then_gone_everywhere(
    mortal: Mesh,
) -> None:
    lost = mortal.workload("east-2", "api")
    known = ["node", "ipcache", "ipcache", "nodes"]
    fresh, stale = ["list: ready", *known], ["list: stale", *known]
    eventually(lambda: all(t == fresh for t in traces(mortal, lost).values()), within_s=3)

    mortal.lab.fault("kill", "east-2")
    killed = time.monotonic()
    first_stale: dict[str, float] = {}
    gone: dict[str, float] = {}
    while len(gone) < len(OTHERS):
        asked = time.monotonic() - killed
        found = traces(mortal, lost)
        answered = time.monotonic() - killed
        assert answered < GONE_S, f"after {answered:.0f} s there is still {found}"
        for node, trace in found.items():
            if trace == stale:
                first_stale.setdefault(node, answered)
            if not trace:
                gone.setdefault(node, answered)
            elif node not in gone and asked < HOLD_S:
                assert trace in (fresh, stale), f"{node} after {asked:.1f} s: {trace}"
        time.sleep(0.5)
    assert first_stale.keys() == gone.keys(), "each showed it as stale before"
    for node in OTHERS:
        held = gone[node] - first_stale[node]
        assert held > HOLD_S - 4, f"{node} held it for {held:.1f} s"
    print(f"stale after {first_stale}, gone after {gone}")


def test_the_others_go_on_without_it(mortal: Mesh) -> None:
    web, db = mortal.workload("east-1", "web"), mortal.workload("west-1", "db")
    assert " 0% packet loss" in mortal.inside(web, f"ping -q -c 3 -i 0.05 -W 2 {db.ipv4}")
    assert mortal.json("east-1", "status")["ready"]


def test_node_delete_gives_a_dead_nodes_prefixes_back(mortal: Mesh) -> None:
    allocations = "meshnet/v1/alloc/pod-cidrs/"
    owners = mortal.etcd("east-1", "get", allocations)
    assert any('"east-2"' in value for value in owners.values())
    mortal.run("east-1", "meshnet", "node", "delete", "east-2")
    owners = mortal.etcd("east-1", "get", allocations)
    assert not any('"east-2"' in value for value in owners.values())
    assert [row["name"] for row in mortal.json("east-1", "node", "list")] == [
        "east-1",
        "west-1",
        "west-2",
    ]
