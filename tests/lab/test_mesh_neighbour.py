"""An endpoint whose network somebody else meddled with finds its gateway again."""

from __future__ import annotations

import pytest

from tests.support.formed import Mesh, Workload

pytestmark = pytest.mark.lab


def test_an_endpoint_without_neighbour_entries_still_reaches_the_mesh(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    mesh.start("east-1", "amnesiac")
    try:
        amnesiac = mesh.workload("east-1", "amnesiac")
        mesh.inside(amnesiac, "ip neigh flush dev eth0 nud permanent")
        assert "PERMANENT" not in mesh.inside(amnesiac, "ip neigh show")
        for address in (workloads["db"].ipv4, workloads["db"].ipv6):
            mesh.inside(amnesiac, f"ping -c 2 -i 0.05 -W 2 {address}")
        learnt = mesh.inside(amnesiac, "ip neigh show")
        assert learnt.count("02:6d:65:73:68:01") == 2, learnt
    finally:
        mesh.stop("east-1", "amnesiac")
