"""One mesh for every test that leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.formed import NODES, SERVE, Mesh, Workload, formed

WORKLOADS = {
    "web": "east-1",
    "web-too": "east-1",
    "api": "east-2",
    "db": "west-1",
    "cache": "west-2",
}

MODES = {
    "east": ("--routing", "auto", "--tunnel", "geneve", "--underlay", "eth1"),
    "west": ("--routing", "tunnel", "--tunnel", "vxlan", "--underlay", "eth1"),
}


@pytest.fixture(scope="session")
def mesh() -> Iterator[Mesh]:
    """Two clusters of two hosts, with an endpoint that serves TCP on each, and two on one."""
    with formed("mesh") as formed_mesh:
        for name, node in WORKLOADS.items():
            formed_mesh.start(node, name, SERVE)
        yield formed_mesh


@pytest.fixture(scope="session")
def workloads(mesh: Mesh) -> dict[str, Workload]:
    """Those endpoints, by name."""
    return {name: mesh.workload(node, name) for name, node in WORKLOADS.items()}


@pytest.fixture(scope="session")
def modes() -> Iterator[Mesh]:
    """A mesh whose clusters want their packets to travel differently, with an endpoint
    `on-NODE` on each node."""
    with formed("modes", init=MODES) as made:
        for node in NODES:
            made.start(node, f"on-{node}", SERVE)
        yield made


@pytest.fixture(scope="session")
def on(modes: Mesh) -> dict[str, Workload]:
    """The endpoint on each of its nodes."""
    return {node: modes.workload(node, f"on-{node}") for node in NODES}
