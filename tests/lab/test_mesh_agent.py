"""Agents, etcd and the mesh leader are killed: packets do not notice, and all comes back."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator

import attrs
import pytest

from tests.support.formed import NODES, Mesh, Workload, eventually

pytestmark = pytest.mark.lab

COUNT = 600
"""Pings of 10 ms: six seconds, and ping waits for the last answer."""
RUN_AFTER = ("run", "--name", "after", "--detach", "--", "sleep", "3600")


@attrs.define
class Ping:
    process: subprocess.Popen[str]
    received: int = 0

    @property
    def running(self) -> bool:
        return self.process.poll() is None


@contextlib.contextmanager
def pinging(mesh: Mesh, source: Workload, target: str) -> Iterator[Ping]:
    """`ping -i 0.01` from an endpoint while the block runs; it is waited for afterwards."""
    ping = f"echo inside; exec ping -n -q -i 0.01 -c {COUNT} -W 5 {target}"
    argv = mesh[source.node].argv(["meshnet", "exec", source.name, "--", "sh", "-c", ping])
    started = Ping(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
    try:
        assert started.process.stdout is not None
        assert started.process.stdout.readline() == "inside\n"
        yield started
        out, _ = started.process.communicate(timeout=30)
    finally:
        started.process.terminate()  # which it hands on: killed, it would leave ping behind
        started.process.wait(timeout=10)
    match = re.search(r"(\d+) packets transmitted, (\d+) received", out)
    assert match, out
    assert int(match[1]) == COUNT
    started.received = int(match[2])


def echoes(mesh: Mesh, endpoint: Workload) -> int:
    """Echo requests that an endpoint's own stack has received."""
    text = mesh.inside(endpoint, "nstat -asz IcmpInEchos | tail -1")
    return int(text.split()[1])


@pytest.mark.parametrize("node", ["east-1", "west-2"])
def test_sigkill_and_restart_of_an_agent_lose_no_packet(
    mesh: Mesh, workloads: dict[str, Workload], node: str
) -> None:
    """On the sender's node, which runs etcd and signs, and on the receiver's."""
    sender, receiver = workloads["web"], workloads["cache"]
    before = echoes(mesh, receiver)
    with (
        pinging(mesh, sender, receiver.ipv4) as there,
        pinging(mesh, receiver, sender.ipv6) as back,
    ):
        kills = 0
        while there.running or back.running:
            mesh.kill_agent(node)
            mesh.start_agent(node)
            kills += 1
    assert (there.received, back.received) == (COUNT, COUNT)
    assert echoes(mesh, receiver) - before == COUNT
    print(f"{kills} kills in {2 * COUNT} pings")
    assert kills >= 3


def test_an_agent_that_comes_back_has_the_same_endpoints_and_tells_nobody_otherwise(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    before = mesh.json("west-1", "endpoint", "list", "--all-clusters")
    mesh.kill_agent("east-2")
    assert mesh.json("west-1", "endpoint", "list", "--all-clusters") == before
    mesh.start_agent("east-2")
    assert mesh.workload("east-2", "api") == workloads["api"]
    assert mesh.json("west-1", "endpoint", "list", "--all-clusters") == before


def leader_of(mesh: Mesh, nodes: tuple[str, ...]) -> str | None:
    status = mesh.each("status", nodes=nodes)
    return next((node for node in nodes if status[node]["leader"]), None)


def listed(mesh: Mesh, node: str, name: str) -> bool:
    rows = mesh.json(node, "endpoint", "list", "--all-clusters")
    return any(row["name"] == name for row in rows)


def test_when_the_mesh_leader_dies_another_takes_over_within_15_s_and_the_mirror_goes_on(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    pair = ("east-1", "east-2")
    eventually(lambda: leader_of(mesh, pair), within_s=15)
    leader = leader_of(mesh, pair)
    (other,) = set(pair) - {leader}
    assert leader is not None
    mesh.kill_agent(leader)
    try:
        took = eventually(lambda: leader_of(mesh, (other,)) == other, within_s=15)
        print(f"led by {other} after {took:.1f} s")
        mesh.start("west-2", "news")
        eventually(lambda: listed(mesh, other, "news"), within_s=3)
    finally:
        mesh.start_agent(leader)
    mesh.stop("west-2", "news")
    eventually(lambda: not any(listed(mesh, node, "news") for node in NODES), within_s=5)


def test_when_etcd_dies_packets_go_on_and_the_agent_brings_it_back_within_seconds(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    web, db = workloads["web"], workloads["db"]

    def started() -> bool:
        done = mesh["east-2"].meshnet(*RUN_AFTER, check=False)
        assert done.returncode == 0 or "is unreachable" in done.stderr, done.stderr
        return done.returncode == 0

    with pinging(mesh, db, web.ipv4) as pings:
        mesh.kill_etcd("east-1")
        assert pings.running
        took = eventually(started, within_s=10)
        eventually(lambda: listed(mesh, "west-2", "after"), within_s=5)
    print(f"an endpoint {took:.1f} s after etcd was killed")
    assert pings.received == COUNT
    mesh.stop("east-2", "after")
    for node in ("east-1", "east-2"):
        mesh.run(node, "meshnet", "status", "--wait", "--timeout", "10s")
