"""A cluster whose etcd is written by hand: what it may not say reaches no map of its neighbour.

The agents of east go on; only keys that no agent of theirs owns are forged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.conftest import WORKLOADS
from tests.support.formed import SERVE, UNDERLAY, Mesh, Workload, eventually, formed

pytestmark = pytest.mark.lab

IPS = "cilium/state/ip/v1/default/"
NODES = "cilium/state/nodes/v1/east/"
IDENTITIES = "cilium/state/identities/v1/id/"
WEST = ("west-1", "west-2")
OURS = 2 << 16 | 300
THEIRS = 1 << 16 | 300


def _ip(address: str, **value: object) -> tuple[str, str]:
    entry = {"IP": address, "HostIP": UNDERLAY["east-1"], "ID": THEIRS} | value
    return f"{IPS}{address}", json.dumps(entry)


def _node(name: str, address: str, cidr: str | None = None) -> tuple[str, str]:
    block = {"IP": cidr, "Mask": "////AA=="} if cidr else None
    value = {
        "Name": name,
        "Cluster": "east",
        "ClusterID": 1,
        "IPAddresses": [{"Type": "InternalIP", "IP": address}],
        "IPv4AllocCIDR": block,
    }
    return f"{NODES}{name}", json.dumps(value)


FOREIGN_LABELS = "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=west;"
HOST_LABELS = "k8s:io.cilium.k8s.policy.cluster=east;reserved:host=;"

LIES = dict(
    [
        _ip("10.2.250.1"),
        _ip("10.99.250.1"),
        _ip("10.1.250.2", HostIP=UNDERLAY["west-1"]),
        _ip("10.1.250.3", ID=OURS),
        _ip("10.1.250.4", ID=1),
        _ip("10.1.250.5", K8sPodName="\x1b[2J"),
        _node("east-x", UNDERLAY["west-2"]),
        _node("east-y", "172.31.0.77", "10.2.250.0"),
        _node("east-z", "10.2.0.1"),
        (f"{IDENTITIES}{OURS}", FOREIGN_LABELS),
        (f"{IDENTITIES}{THEIRS + 7}", FOREIGN_LABELS),
        (f"{IDENTITIES}{THEIRS + 8}", HOST_LABELS),
    ]
)
"""Our addresses, others', our HostIP, our identity, our host, a screen cleared; nodes at our
address and inside our PodCIDR; our number, our label, our host's label."""


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """A mesh of its own: the liar's agents believe their own etcd, and go on holding a node that
    answers at an address which is another's."""
    with formed("hostile") as made:
        for name, node in WORKLOADS.items():
            made.start(node, name, SERVE)
        yield made


@pytest.fixture(scope="module")
def workloads(mesh: Mesh) -> dict[str, Workload]:
    return {name: mesh.workload(node, name) for name, node in WORKLOADS.items()}


@pytest.fixture
def lying(mesh: Mesh) -> Iterator[None]:
    try:
        for key, value in LIES.items():
            mesh.etcd("east-1", "put", key, value)
        yield
    finally:
        for key in LIES:
            mesh.etcd("east-1", "delete", key)


def _refused(mesh: Mesh) -> dict[str, list[str]]:
    return {
        node: [
            row["message"].split()[0] for row in status["problems"] if row["id"] == "refused-key"
        ]
        for node, status in mesh.each("status", nodes=WEST).items()
    }


def test_every_lie_is_shown_once_by_key_and_reaches_no_map(
    mesh: Mesh, workloads: dict[str, Workload], lying: None
) -> None:
    def all_shown() -> bool:
        return all(set(keys) >= set(LIES) for keys in _refused(mesh).values())

    eventually(all_shown, within_s=30, every_s=0.5)
    for keys in _refused(mesh).values():
        assert len(keys) == len(set(keys)), "each once"
    cached = mesh.etcd("west-1", "get", "cilium/cache/")
    values = set(LIES.values())
    assert not [key for key, value in cached.items() if value in values]
    for node in WEST:
        rows = json.dumps(mesh.json(node, "map", "dump", "ipcache"))
        assert "250." not in rows and "10.99." not in rows
        nodes = json.dumps(mesh.json(node, "map", "dump", "nodes"))
        assert "172.31.0.77" not in nodes

    (status,) = mesh.json("west-1", "mesh", "status")
    assert status["ready"], "its honest keys are read on"
    for source, target in (("db", "cache"), ("db", "web")):
        ping = f"ping -q -c 3 -i 0.05 -W 2 {workloads[target].ipv4}"
        assert " 0% packet loss" in mesh.inside(workloads[source], ping)


def test_when_it_stops_lying_nothing_is_left_of_it(mesh: Mesh, lying: None) -> None:
    eventually(lambda: all(_refused(mesh).values()), within_s=30, every_s=0.5)
    for key in LIES:
        mesh.etcd("east-1", "delete", key)
    eventually(lambda: not any(_refused(mesh).values()), within_s=30, every_s=0.5)
