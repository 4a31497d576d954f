"""A Cilium cluster in the mesh: its etcd is read, ours is read by it, and packets pass.

a: meshnet cluster `east` ── VXLAN 8472, etcd ── b: node of the Cilium cluster `cil`
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

from meshnet.pki.certificate import Profile
from tests.support import cilium, cilium_peer
from tests.support.etcd import Pki
from tests.support.formed import eventually, two_hosts
from tests.support.lab import Lab, Node

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
B = "172.30.7.2"
PEER = ("env", f"PYTHONPATH={ROOT}", sys.executable, cilium_peer.__file__)
HERE = "/root/cil"
"""On either host: what it needs of the other."""


@attrs.frozen
class Peering:
    lab: Lab
    tunnel: Path
    """What came through the tunnel to b, a line each."""

    @property
    def a(self) -> Node:
        return self.lab["a"]

    def json(self, *words: str) -> Any:
        return json.loads(self.a.meshnet(*words, "-o", "json").stdout)

    def arrived(self) -> list[dict[str, Any]]:
        lines = self.tunnel.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture(scope="module")
def peering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peering]:
    directory = tmp_path_factory.mktemp("cilium")
    with two_hosts("cilium", directory) as lab:
        _lay_out(lab, Pki.create(directory / "pki"))
        lab["a"].meshnet("cluster", "init", "east", "--id", "1")
        output = directory / "tunnel"
        with output.open("wb") as file:
            serving = subprocess.Popen(
                lab["b"].argv([*PEER, "serve", HERE, B]), stdout=file, stderr=subprocess.STDOUT
            )
        try:
            eventually(lambda: "ready" in output.read_text(), within_s=30)
            yield Peering(lab, output)
        finally:
            serving.terminate()
            serving.wait(timeout=10)
            lab["a"].meshnet("cluster", "leave", "--force", check=False)


def _lay_out(lab: Lab, pki: Pki) -> None:
    """The etcd's own files on b, and on a those with which it is read, in Cilium's form."""
    pki.issue("server", Profile.ETCD, address=B)
    pki.issue("cil", Profile.NODE)
    config = {
        "endpoints": ["https://cil.mesh.cilium.io:2379"],
        "trusted-ca-file": "/var/lib/cilium/clustermesh/ca.crt",
        "cert-file": "/var/lib/cilium/clustermesh/cil.crt",
        "key-file": "/var/lib/cilium/clustermesh/cil.key",
        "cilium-host-aliases": [{"hostname": "cil.mesh.cilium.io", "ips": [B]}],
    }
    pki.issue("server", Profile.ETCD, address=B, dns_names=("cil.mesh.cilium.io",))
    for name, files in {
        "a": ("ca.crt", "cil.crt", "cil.key"),
        "b": ("ca.crt", "server.crt", "server.key"),
    }.items():
        here = lab[name].path(HERE)
        here.mkdir(parents=True)
        for file in files:
            (here / file).write_bytes((pki.directory / file).read_bytes())
    lab["a"].path(f"{HERE}/cil").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def added(peering: Peering) -> Peering:
    """After `mesh add`."""
    done = peering.a.meshnet(
        "mesh", "add", cilium.CLUSTER, "--etcd-config", f"{HERE}/cil", "--pod-cidr", cilium.POD_CIDR
    )
    assert done.stdout.endswith(f"cluster {cilium.CLUSTER} (id {cilium.ID}) added\n")
    peering.a.meshnet("mesh", "status", "--wait", "--timeout", "30s")
    return peering


@pytest.fixture(scope="module")
def web(added: Peering) -> dict[str, Any]:
    """An endpoint of ours."""
    added.a.meshnet("run", "--name", "web", "--label", "app=web", "--detach", "--", "sleep", "3600")
    found: dict[str, Any] = added.json("endpoint", "show", "web")
    return found


def test_its_state_is_read_in_full_and_nothing_of_it_refused(added: Peering) -> None:
    (row,) = added.json("mesh", "status")
    assert (row["name"], row["id"], row["ready"]) == (cilium.CLUSTER, cilium.ID, True)
    counts = {key: row[key] for key in ("nodes", "identities", "endpoints", "services")}
    assert counts == dict.fromkeys(counts, 1)
    assert row["refused"] == 0
    assert not [p for p in added.json("status")["problems"] if p["id"] == "refused-key"]
    (pod,) = [
        row
        for row in added.json("endpoint", "list", "--all-clusters")
        if row["cluster"] == cilium.CLUSTER
    ]
    assert (pod["ipv4"], pod["identity"]) == (cilium.POD, cilium.IDENTITY)
    assert pod["labels"] == {"app": "server"}


def test_an_endpoint_and_a_pod_reach_each_other_with_their_identities(
    added: Peering, web: dict[str, Any]
) -> None:
    pinged = added.a.exec(
        [
            "meshnet",
            "exec",
            "web",
            "--",
            "ping",
            "-q",
            "-c",
            "3",
            "-i",
            "0.2",
            "-W",
            "2",
            cilium.POD,
        ]
    )
    drops = [row for row in added.json("drops") if row["packets"]]
    assert " 0% packet loss" in pinged.stdout, (drops, added.tunnel.read_text()[-1500:])
    assert added.arrived()[-1] == {
        "vni": web["identity"],
        "source": web["ipv4"],
        "destination": cilium.POD,
    }
    seen = added.json("map", "dump", "seen_identities")
    assert cilium.IDENTITY in [row["identity"] for row in seen]


def test_what_access_wrote_reads_us_as_kvstoremesh_does(
    added: Peering, web: dict[str, Any]
) -> None:
    added.a.meshnet("mesh", "access", cilium.CLUSTER, "--out", "/root/for-cil")
    given = added.a.path("/root/for-cil")
    there = added.lab["b"].path("/root/for-cil")
    there.mkdir()
    for file in given.iterdir():
        (there / file.name).write_bytes(file.read_bytes())

    read: dict[str, str] = {}

    def admitted() -> bool:
        done = added.lab["b"].exec([*PEER, "read", "/root/for-cil", "east"])
        if done.returncode == 0:
            read.update(json.loads(done.stdout))
        return done.returncode == 0

    eventually(admitted, within_s=15, every_s=0.5)
    entry = json.loads(read[f"cilium/state/ip/v1/default/{web['ipv4']}"])
    assert (entry["ID"], entry["HostIP"], entry["K8sPodName"]) == (
        web["identity"],
        "172.30.7.1",
        "web",
    )
    assert "k8s:app=web;" in read[f"cilium/state/identities/v1/id/{web['identity']}"]
    assert json.loads(read["cilium/state/nodes/v1/east/a"])["ClusterID"] == 1
    assert sum(key.startswith("cilium/synced/east/cilium/state/") for key in read) == 4
