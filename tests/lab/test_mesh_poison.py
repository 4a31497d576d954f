"""Keys in etcd that nobody can use: named once, shown as problems, and everything else goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.formed import LOG, NODES, UNDERLAY, Mesh, Workload, eventually

pytestmark = pytest.mark.lab

EAST = ("east-1", "east-2")
WEST = ("west-1", "west-2")
IPS = "cilium/state/ip/v1/default/"
GHOST = {
    "Name": "ghost",
    "Cluster": "east",
    "ClusterID": 2,
    "IPAddresses": [{"Type": "InternalIP", "IP": "172.31.0.66"}],
}
POISON = {
    f"{IPS}10.1.250.1": "this is not JSON",
    f"{IPS}10.1.250.2": json.dumps({"IP": ["10.1.250.2"], "HostIP": 5, "ID": "many"}),
    "cilium/state/nodes/v1/east/ghost": json.dumps(GHOST),
    f"cilium/state/identities/v1/id/{2 << 16 | 300}": json.dumps({"k8s:app": "web"}),
}
"""Not JSON, of wrong types, of another cluster's id, a number of another cluster."""

LYING = f"{IPS}10.99.250.3"
LIE = json.dumps({"IP": "10.99.250.3", "HostIP": UNDERLAY["east-1"], "ID": 1 << 16 | 300})
"""Fine to read, but outside of what cluster east may have addresses from."""


@pytest.fixture
def poisoned(mesh: Mesh) -> Iterator[dict[str, str]]:
    """Bad keys for the etcd of east, where none of them is when the test ends."""
    try:
        yield POISON
    finally:
        for key in (*POISON, LYING):
            mesh.etcd("east-1", "delete", key)


def log_of(mesh: Mesh, node: str) -> list[str]:
    return mesh[node].path(LOG).read_text().splitlines()


def problems(mesh: Mesh, problem: str, nodes: tuple[str, ...]) -> dict[str, set[str]]:
    """Node -> the keys that it shows as that problem."""
    status = mesh.each("status", nodes=nodes)
    return {
        node: {
            row["message"].split()[0] for row in status[node]["problems"] if row["id"] == problem
        }
        for node in nodes
    }


def test_a_poisoned_key_is_logged_once_shown_as_a_problem_and_all_else_goes_on(
    mesh: Mesh, workloads: dict[str, Workload], poisoned: dict[str, str]
) -> None:
    keys = set(poisoned)
    before = {node: len(log_of(mesh, node)) for node in EAST}
    for key, value in poisoned.items():
        mesh.etcd("east-1", "put", key, value)
    eventually(
        lambda: all(shown == keys for shown in problems(mesh, "poisoned-key", EAST).values()),
        within_s=5,
    )
    mesh.start("west-1", "unharmed")
    try:
        unharmed = mesh.workload("west-1", "unharmed")
        for name in ("web", "api", "cache"):
            said = mesh.inside(workloads[name], f"ping -q -c 3 -i 0.05 -W 2 {unharmed.ipv4}")
            assert " 0% packet loss" in said
        lists = mesh.each("endpoint", "list", "--all-clusters")
        assert all(len(lists[node]) == len(workloads) + 1 for node in NODES)
        assert {row["state"] for row in lists["east-2"]} == {"ready"}
    finally:
        mesh.stop("west-1", "unharmed")
    for node in EAST:
        lines = log_of(mesh, node)[before[node] :]
        for key in keys:
            assert len([line for line in lines if key in line]) == 1, f"{node}: {key}"

    for key in keys:
        mesh.etcd("east-1", "delete", key)
    eventually(
        lambda: not any(problems(mesh, "poisoned-key", EAST).values()),
        within_s=5,
    )


def test_what_a_remote_may_not_say_is_refused_by_key_and_never_reaches_our_maps(
    mesh: Mesh, poisoned: dict[str, str]
) -> None:
    for key, value in (*poisoned.items(), (LYING, LIE)):
        mesh.etcd("east-1", "put", key, value)

    def refused() -> bool:
        shown = problems(mesh, "refused-key", WEST)
        return all(keys >= {LYING, f"{IPS}10.1.250.1"} for keys in shown.values())

    eventually(refused, within_s=15)
    for rows in mesh.each("map", "dump", "ipcache", nodes=WEST).values():
        assert not [row for row in rows if ".250." in row["address"]]
    assert mesh.json("west-1", "mesh", "status")[0]["ready"]
    assert not [key for key in mesh.etcd("west-1", "get", "cilium/cache/") if ".250." in key]
