"""Namespaces in a real mesh: relabelled endpoints get another identity and lose no packet."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.formed import NODES, Mesh, Workload, eventually

pytestmark = pytest.mark.lab

KEY = "meshnet/v1/manifests/namespace//default"


@pytest.fixture
def relabelled(mesh: Mesh, workloads: dict[str, Workload]) -> Iterator[Workload]:
    """An endpoint of east-1 while its namespace has labels of its own."""
    try:
        yield workloads["web"]
    finally:
        mesh.etcd("east-1", "delete", KEY)
        eventually(
            lambda: mesh.workload("east-1", "web").identity == workloads["web"].identity,
            within_s=15,
        )


def test_a_namespaces_labels_change_identities_everywhere_and_no_packet_is_lost(
    mesh: Mesh, relabelled: Workload, workloads: dict[str, Workload]
) -> None:
    web, db = relabelled, workloads["db"]
    document = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "default", "labels": {"env": "prod"}},
    }
    words = ("meshnet", "exec", web.name, "--", "ping", "-q", "-i", "0.02", "-w", "60", db.ipv4)
    with subprocess.Popen(mesh[web.node].argv(words), stdout=subprocess.PIPE, text=True) as running:
        mesh.etcd("east-1", "put", KEY, json.dumps(document))
        eventually(lambda: mesh.workload("east-1", "web").identity != web.identity, within_s=15)
        time.sleep(0.5)  # and some packets under the new one
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=60)
    assert " 0% packet loss" in said, said

    changed = mesh.workload("east-1", "web")
    assert (changed.ipv4, changed.id) == (web.ipv4, web.id)

    def known_everywhere() -> bool:
        rows = mesh.each("endpoint", "list", "--all-clusters")
        numbers = {
            node: {row["identity"] for row in found if row["ipv4"] == web.ipv4}
            for node, found in rows.items()
        }
        return all(numbers[node] == {changed.identity} for node in NODES)

    eventually(known_everywhere, within_s=15)
    (identity,) = [
        row for row in mesh.json("west-2", "identity", "list") if row["number"] == changed.identity
    ]
    assert identity["labels"]["k8s:io.cilium.k8s.namespace.labels.env"] == "prod"
    assert identity["labels"]["k8s:io.cilium.k8s.policy.serviceaccount"] == "default"


def test_when_run_returns_every_node_has_the_endpoints_row(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    """The row of its address is there before the endpoint is ready: the first packet of a new
    identity finds others that know it."""
    mesh.start("east-2", "brand-new")
    try:
        rows = mesh.each("map", "dump", "ipcache")
        fresh = mesh.workload("east-2", "brand-new")
        for node, found in rows.items():
            (row,) = [row for row in found if row["address"].split("/")[0] == fresh.ipv4]
            assert row["identity"] == fresh.identity, node
        assert " 0% packet loss" in mesh.inside(
            fresh, f"ping -q -c 1 -W 2 {workloads['cache'].ipv4}"
        )
    finally:
        mesh.stop("east-2", "brand-new")
