"""A mesh whose CAs are replaced while it carries packets, and a node of it that was stolen."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.formed import UNDERLAY, Mesh, eventually, formed
from tests.support.lab import Node

pytestmark = pytest.mark.lab

NODES_OF_EAST = ("east-1", "east-2")
PING = "ping -q -n -i 0.05 -W 5 {address}"


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with formed("trust") as made:
        made.start("east-2", "api")
        made.start("west-2", "cache")
        yield made


IDLE = str(Path(__file__).parents[1] / "support" / "idle_reader.py")
IDLE_S = 50.0
"""More than three pings: grpc's own limits would have cut the client at the third."""


@pytest.fixture(scope="module")
def idle(mesh: Mesh) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """A client of east's gateway that only pings, since before the CAs were replaced."""
    argv = [sys.executable, IDLE, "east", f"{UNDERLAY['east-2']}:4243"]
    with subprocess.Popen(
        mesh["west-1"].argv(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        try:
            yield reader, time.monotonic()
        finally:
            reader.kill()


def pinging(node: Node, endpoint: str, address: str) -> subprocess.Popen[str]:
    argv = node.argv(["meshnet", "exec", endpoint, "--", *PING.format(address=address).split()])
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(mesh: Mesh, node: str, ping: subprocess.Popen[str]) -> tuple[int, int]:
    """Sent and received, once ping was asked to sum up."""
    mesh[node].exec(["sh", "-c", "kill -INT $(pgrep -x ping)"])
    out, err = ping.communicate(timeout=20)
    found = re.search(r"(\d+) packets transmitted, (\d+) received", out)
    assert found, out + err
    return int(found[1]), int(found[2])


def ca(mesh: Mesh) -> dict[str, object]:
    found: dict[str, object] = mesh.json("east-1", "cluster", "ca", "status")
    return found


def fingerprints(mesh: Mesh) -> set[str]:
    return {row["fingerprint"] for row in ca(mesh)["authorities"]}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("idle")
def test_cas_are_replaced_and_certificates_renewed_without_one_lost_packet(mesh: Mesh) -> None:
    api, cache = mesh.workload("east-2", "api"), mesh.workload("west-2", "cache")
    before = fingerprints(mesh)
    there = pinging(mesh["east-2"], "api", cache.ipv4)
    back = pinging(mesh["west-2"], "cache", api.ipv6)

    mesh.run("east-1", "meshnet", "config", "set", "certificate_lifetime", "2m")
    mesh.run("east-1", "meshnet", "cluster", "ca", "rotate")
    eventually(
        lambda: (ca(mesh)["phase"], ca(mesh)["epoch"]) == ("stable", 3), within_s=90, every_s=0.5
    )
    remote = mesh.etcd("west-1", "get", "meshnet/v1/remotes/east")
    mesh.run("west-1", "meshnet", "mesh", "status", "--wait", "--timeout", "30s")

    assert len(remote) == 1
    assert fingerprints(mesh).isdisjoint(before)
    for node in NODES_OF_EAST:
        status = mesh.json(node, "status")
        assert status["certificates"][0]["days_left"] * 86400 <= 125
        assert {"certificate-expired", "renewal-failed", "trust-not-followed"}.isdisjoint(
            problem["id"] for problem in status["problems"]
        )
    for node, ping in (("east-2", there), ("west-2", back)):
        sent, received = ended(mesh, node, ping)
        assert sent > 100
        assert received == sent


def test_one_signer_is_a_problem_that_says_what_to_do(mesh: Mesh) -> None:
    problems = {row["id"]: row["fix"] for row in mesh.json("east-2", "status")["problems"]}

    assert problems["too-few-signers"] == (
        "join one more host with `meshnet cluster token --signer`"
    )


def test_rotation_is_refused_where_there_are_no_keys(mesh: Mesh) -> None:
    done = mesh["east-2"].meshnet("cluster", "ca", "rotate", check=False)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Error: this node holds no CA keys: run `meshnet cluster ca rotate` on a signer "
        "(172.31.0.11:4244)"
    )


def test_a_client_that_pings_every_15_s_and_says_nothing_is_not_cut(
    idle: tuple[subprocess.Popen[str], float],
) -> None:
    """As Cilium's; its negative is in tests/contract/test_kvstoremesh.py."""
    reader, began = idle
    time.sleep(max(0.0, began + IDLE_S - time.monotonic()))
    said, _ = reader.communicate(timeout=60)
    found = json.loads(said)
    assert found["idle_s"] >= IDLE_S
    assert (set(found["states"]), found["keys"]) == ({"READY"}, 1)


def test_stolen_node_is_thrown_out_and_reaches_nobody_any_more(mesh: Mesh) -> None:
    cache = mesh.workload("west-2", "cache")

    done = mesh["east-1"].meshnet("node", "delete", "east-2", "--revoke")

    assert done.stderr.splitlines()[-1] == (
        "node east-2 is thrown out: etcd refuses it, its keys are gone"
    )
    eventually(
        lambda: (
            "etcd-unreachable"
            in [problem["id"] for problem in mesh.json("east-2", "status")["problems"]]
        ),
        within_s=20,
    )
    assert mesh.etcd("east-1", "get", "cilium/state/nodes/v1/east/east-2") == {}
    eventually(
        lambda: (
            mesh["east-2"]
            .exec(["meshnet", "exec", "api", "--", "ping", "-c1", "-W1", cache.ipv4])
            .returncode
        ),
        within_s=60,
        every_s=1,
    )
