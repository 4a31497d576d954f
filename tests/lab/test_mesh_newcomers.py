"""What is said first under a new identity is not lost, though nobody has heard of it before.

east-1: 200 new identities, 50 of each of 4 endpoints ──▶ a door on east-2, one on west-2: default
                                                          deny, and one label allowed
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.formed import Mesh, Workload, eventually

pytestmark = pytest.mark.lab

SCRIPT = str(Path(__file__).parents[1] / "support" / "newcomers.py")
ENDPOINTS, ROUNDS = 4, 50
COUNT = ENDPOINTS * ROUNDS
LOST_AT_MOST = COUNT // 100
"""p99."""
SETTLED_S = 0.2
"""A new number is known this long before its endpoint is ready."""

DOORS = {"door-east": "east-2", "door-west": "west-2"}
PORT = 7000
OPEN = f"""
import socket
door = socket.create_server(
    ("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True, backlog={COUNT}
)
while True:
    door.accept()[0].close()
"""
"""With room for every caller: nobody has to call twice since it is slow."""

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: newcomers}
spec:
  endpointSelector: {matchLabels: {app: %s}}
  ingress:
    - fromEndpoints:
        - matchLabels: {role: newcomer, io.cilium.k8s.policy.cluster: east}
"""


@pytest.fixture(scope="module")
def doors(mesh: Mesh) -> Iterator[dict[str, Workload]]:
    """A server in each cluster that lets in nobody but who has the label."""
    try:
        for name, node in DOORS.items():
            mesh.start(node, name, ("python3", "-c", OPEN))
            mesh[node].path("/tmp/newcomers.yaml").write_text(POLICY % name)
        made = {name: mesh.workload(node, name) for name, node in DOORS.items()}
        for door in made.values():
            listening = f"ss -Hltn sport = :{PORT}"
            eventually(lambda d=door, ask=listening: mesh.inside(d, ask), within_s=20)
            mesh.run(door.node, "meshnet", "apply", "--wait", "-f", "/tmp/newcomers.yaml")
        yield made
    finally:
        for name, node in DOORS.items():
            mesh.run(node, "meshnet", "delete", "--wait", "-f", "/tmp/newcomers.yaml")
            mesh[node].path("/tmp/newcomers.yaml").unlink()
            mesh.stop(node, name)


def come(
    mesh: Mesh, doors: dict[str, Workload], role: str, endpoints: int, rounds: int, patience_s: int
) -> list[dict[str, Any]]:
    to = (doors["door-east"].ipv4, str(PORT), doors["door-west"].ipv6, str(PORT))
    words = (str(endpoints), str(rounds), str(patience_s), json.dumps({"role": role}))
    said = mesh.run("east-1", sys.executable, SCRIPT, *words, *to)
    return [json.loads(line) for line in said.splitlines()]


def denied(mesh: Mesh, server: Workload) -> int:
    return mesh.drops(server.node).get("POLICY_DEFAULT_DENY", 0)


def test_the_first_syn_of_two_hundred_new_identities_passes_a_default_deny(
    mesh: Mesh, doors: dict[str, Workload]
) -> None:
    before = {name: denied(mesh, server) for name, server in doors.items()}

    rows = come(mesh, doors, "newcomer", ENDPOINTS, ROUNDS, patience_s=20)

    assert len({row["identity"] for row in rows}) == COUNT
    assert all(row["ready_s"] >= SETTLED_S for row in rows), "every identity was new"
    for name, address in (
        ("door-east", doors["door-east"].ipv4),
        ("door-west", doors["door-west"].ipv6),
    ):
        to_it = [row for row in rows if row["address"] == address]
        took = sorted(row["connected_s"] for row in to_it)
        again = [row["identity"] for row in to_it if row["sent_again"]]
        print(
            f"{name}: p50 {took[COUNT // 2] * 1000:.1f} ms, p99 {took[-3] * 1000:.1f} ms, "
            f"{len(again)} of {COUNT} SYNs sent again"
        )
        assert all(row["reached"] for row in to_it)
        assert len(again) <= LOST_AT_MOST, again
        assert denied(mesh, doors[name]) - before[name] <= LOST_AT_MOST


def test_who_has_another_label_is_denied(mesh: Mesh, doors: dict[str, Workload]) -> None:
    """The policy above is in force: without the label no SYN passes, however often it is sent."""
    before = {name: denied(mesh, server) for name, server in doors.items()}

    rows = come(mesh, doors, "stranger", 1, 1, patience_s=2)

    assert [(row["reached"], row["sent_again"] > 0) for row in rows] == [(False, True)] * 2
    for name, server in doors.items():
        assert denied(mesh, server) > before[name]
