"""Nodes leave their cluster and clusters their mesh: nothing of them stays where it was."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.formed import UNDERLAY, Mesh, Workload, eventually, formed, network_of
from tests.support.lab import Node

pytestmark = pytest.mark.lab

OF_MESHNET = """
ls -A /etc/meshnet /var/lib/meshnet 2>/dev/null | grep -v : | grep .
ls -d /run/meshnet /sys/fs/bpf/meshnet /run/netns/* 2>/dev/null
ip -br link | grep -v -e '^lo ' -e '^eth1@'
ip route show table all | grep 'proto 109'
ip -6 route show table all | grep 'proto 109'
true
"""
"""Prints whatever of meshnet is on a host, but for the agent's log."""


SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
PROG_QUERY, TCX_INGRESS = 16, 46


@pytest.fixture(scope="module")
def parting() -> Iterator[Mesh]:
    with formed("leave") as mesh:
        mesh.start("east-1", "web")
        mesh.start("west-1", "db")
        mesh.start("west-2", "cache")
        yield mesh


def attached(node: Node) -> int:
    """Programs at tcx ingress of the underlay: the kernel's own count (bpf(2), <linux/bpf.h>)."""
    with network_of(node):
        query = bytearray(
            struct.pack("=IIIIQI", socket.if_nametoindex("eth1"), TCX_INGRESS, 0, 0, 0, 0)
        )
        buffer = (ctypes.c_char * 64).from_buffer(query.ljust(64, b"\0"))
        done = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, PROG_QUERY, buffer, len(buffer))
    assert done == 0, os.strerror(ctypes.get_errno())
    return int(struct.unpack_from("=I", buffer, 24)[0])


def known(mesh: Mesh, node: str, lost: Workload) -> list[str]:
    """What a node still knows of an endpoint."""
    rows = mesh.json(node, "endpoint", "list", "--all-clusters")
    cached = mesh.json(node, "map", "dump", "ipcache")
    return [row["name"] for row in rows if row["name"] == lost.name] + [
        row["address"] for row in cached if row["address"] in (lost.ipv4, lost.ipv6)
    ]


def knows(mesh: Mesh, node: str, one: Workload) -> bool:
    """In its list, and both addresses in its map."""
    return len(known(mesh, node, one)) == 3


def forgot(mesh: Mesh, node: str, one: Workload) -> bool:
    return not known(mesh, node, one)


def test_cluster_leave_leaves_nothing_in_etcd_or_in_the_kernel(parting: Mesh) -> None:
    lost = parting.workload("west-2", "cache")
    for node in ("east-1", "east-2", "west-1"):
        eventually(partial(knows, parting, node, lost), within_s=3)
    assert attached(parting["west-2"]) == 1
    parting.run("west-2", "meshnet", "cluster", "leave")
    for node in ("east-1", "east-2", "west-1"):
        eventually(partial(forgot, parting, node, lost), within_s=3)

    assert parting.run("west-2", "sh", "-c", OF_MESHNET) == ""
    assert attached(parting["west-2"]) == 0
    traces = ("west-2", UNDERLAY["west-2"], lost.ipv4, lost.ipv6)
    own, mirrored = ("cilium/", "meshnet/"), ("cilium/",)
    eventually(lambda: not mentions(parting, "west-1", own, traces), within_s=5)
    eventually(lambda: not mentions(parting, "east-1", mirrored, traces), within_s=5)
    allocated = parting.etcd("west-1", "get", "meshnet/v1/alloc/pod-cidrs/").values()
    assert {json.loads(value)["node"] for value in allocated} == {"west-1", ""}, "free again"


def mentions(
    mesh: Mesh, node: str, prefixes: tuple[str, ...], words: tuple[str, ...]
) -> dict[str, str]:
    """Keys of its etcd in which one of the words is, or in whose value."""
    keys = {k: v for prefix in prefixes for k, v in mesh.etcd(node, "get", prefix).items()}
    return {key: value for key, value in keys.items() if any(w in key + value for w in words)}


def test_a_live_node_is_not_deleted(parting: Mesh) -> None:
    done = parting["east-1"].meshnet("node", "delete", "east-2", check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: node east-2 is alive (its lease is kept): run `meshnet cluster leave` there\n",
    )
    done = parting["east-1"].meshnet("node", "delete", "nobody", check=False)
    assert (done.returncode, done.stderr) == (
        4,
        "Error: node nobody holds nothing in cluster east\n",
    )


def unready(mesh: Mesh, node: str) -> dict[str, str]:
    """Remotes that are not ready, and why, as `mesh status` says by its exit code too."""
    done = mesh[node].meshnet("mesh", "status", "-o", "json", check=False)
    rows = {row["name"]: row["error"] for row in json.loads(done.stdout) if not row["ready"]}
    assert done.returncode == (1 if rows else 0)
    return rows


def test_mesh_leave_takes_the_other_clusters_state_out_of_etcd_and_maps(parting: Mesh) -> None:
    web, db = parting.workload("east-1", "web"), parting.workload("west-1", "db")
    parting.run("east-2", "meshnet", "mesh", "leave", "west")
    eventually(partial(forgot, parting, "east-1", db), within_s=5)
    eventually(lambda: not parting.etcd("east-1", "get", "cilium/cache/"), within_s=5)
    assert parting.json("east-1", "mesh", "status") == []
    assert parting.json("east-1", "map", "dump", "nodes") == [
        row for row in parting.json("east-1", "map", "dump", "nodes") if row["cluster_id"] == 1
    ]
    eventually(lambda: unready(parting, "west-1"), within_s=15)
    ((name, error),) = unready(parting, "west-1").items()
    assert (name, error.partition(" at ")[0]) == ("east", "gateway of cluster east")

    parting.run("west-1", "meshnet", "mesh", "leave", "east")
    eventually(partial(forgot, parting, "west-1", web), within_s=5)
    assert parting.json("west-1", "mesh", "status") == []
    done = parting["west-1"].meshnet("mesh", "leave", "east", check=False)
    assert (done.returncode, done.stderr) == (
        4,
        "Error: cluster 'east' is not in the mesh: see `meshnet mesh status`\n",
    )
