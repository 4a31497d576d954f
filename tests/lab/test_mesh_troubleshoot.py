"""`mesh troubleshoot` in a real mesh: every rung holds, and a cut shows at its own rung."""

from __future__ import annotations

import json

import pytest

from tests.support.formed import UNDERLAY, Mesh, eventually

pytestmark = pytest.mark.lab


def rungs(mesh: Mesh, node: str) -> tuple[int, dict[str, bool | None], list[dict[str, str]]]:
    done = mesh[node].meshnet("mesh", "troubleshoot", "-o", "json", check=False)
    rows = json.loads(done.stdout)
    return done.returncode, {row["rung"]: row["ok"] for row in rows}, rows


def test_every_rung_holds_from_every_node(mesh: Mesh) -> None:
    def all_hold() -> bool:
        code, found, _ = rungs(mesh, "east-2")
        return code == 0 and len(found) == 8 and all(found.values())

    eventually(all_hold, within_s=30, every_s=0.5)
    code, _, rows = rungs(mesh, "west-1")
    assert code == 0 and {row["cluster"] for row in rows} == {"east"}
    assert mesh["west-1"].meshnet("mesh", "troubleshoot", "north", check=False).returncode == 4


def test_gateways_that_cannot_be_reached_break_the_rung_of_tcp(mesh: Mesh) -> None:
    """A rule in east-2 itself: nothing else of the mesh is touched."""
    rule = ["nft", "add table inet cutoff; add chain inet cutoff out { type filter hook output "]
    rule[1] += "priority 0; }; add rule inet cutoff out tcp dport 4243 reject with tcp reset"
    mesh.run("east-2", *rule)
    try:
        code, found, rows = rungs(mesh, "east-2")
    finally:
        mesh.run("east-2", "nft", "delete table inet cutoff")
    assert code == 1
    assert (found["DNS"], found["TCP"], found["TLS"]) == (True, False, None)
    (broken,) = [row for row in rows if row["ok"] is False]
    assert UNDERLAY["west-1"] in broken["evidence"] and "4243/tcp" in broken["fix"]
