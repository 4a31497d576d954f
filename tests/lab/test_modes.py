"""A mesh in which every pair of nodes travels as it can: native, Geneve, VXLAN.

east asks for `auto`, with Geneve as its tunnel; west for VXLAN tunnels and nothing else.

    east-1 ── native ── east-2      west-1 ── VXLAN ── west-2
    east-* ── Geneve out, VXLAN back ── west-*
"""

from __future__ import annotations

import re
import subprocess
from itertools import permutations

import pytest

from tests.lab.test_mesh_reach import reached, tries
from tests.support.formed import SWITCH, UNDERLAY, Json, Mesh, Workload, eventually

pytestmark = pytest.mark.lab

EXPECTED = {
    "east-1": {"east-2": "native", "west-1": "geneve", "west-2": "geneve"},
    "east-2": {"east-1": "native", "west-1": "geneve", "west-2": "geneve"},
    "west-1": {"east-1": "vxlan", "east-2": "vxlan", "west-2": "vxlan"},
    "west-2": {"east-1": "vxlan", "east-2": "vxlan", "west-1": "vxlan"},
}


def seen_modes(modes: Mesh, node: str) -> dict[str, str]:
    return {row["node"]: row["mode"] for row in peers(modes, node)}


def peers(modes: Mesh, node: str) -> list[Json]:
    """The mesh's own nodes: others that a test brought are remembered for a while."""
    return [row for row in modes.json(node, "status")["peers"] if row["node"] in EXPECTED]


def settled(modes: Mesh) -> None:
    for node, expected in EXPECTED.items():
        eventually(lambda n=node, e=expected: seen_modes(modes, n) == e, within_s=90)


def pod_cidrs(modes: Mesh, node: str) -> dict[int, str]:
    cidrs = modes.json(node, "status")["node"]["pod_cidrs"]
    return {6 if ":" in cidr else 4: cidr for cidr in cidrs}


def test_status_shows_the_mode_of_every_pair(modes: Mesh) -> None:
    settled(modes)
    for node in EXPECTED:
        for row in peers(modes, node):
            assert row["reachable"] is True
            assert row["rtt_ms"] > 0
            assert row["modes"] == {"ipv4": row["mode"], "ipv6": row["mode"]}
            assert row["path_mtu_bytes"] > 1280


def test_native_peers_have_kernel_routes_by_their_address_and_others_by_the_tunnel(
    modes: Mesh,
) -> None:
    settled(modes)
    six = f"fd31::{UNDERLAY['east-2'].rpartition('.')[2]}"
    near, far = pod_cidrs(modes, "east-2"), pod_cidrs(modes, "west-1")

    def route(cidr: str) -> str:
        family = "-6" if ":" in cidr else "-4"
        return modes.run("east-1", "ip", family, "route", "show", cidr, "proto", "109")

    eventually(lambda: f"via {UNDERLAY['east-2']} dev eth1" in route(near[4]), within_s=5)
    eventually(lambda: f"via {six} dev eth1" in route(near[6]), within_s=5)
    for cidr in far.values():
        assert re.search(r"dev meshnet-vxlan\b", route(cidr))


def test_every_pair_reaches_the_other_in_both_families_and_is_known(
    modes: Mesh, on: dict[str, Workload]
) -> None:
    settled(modes)
    for source, other in permutations(on.values(), 2):
        addresses = {other.ipv4, other.ipv6}
        assert reached(modes.inside(source, tries(sorted(addresses)))) == addresses, (source, other)
    for receiver in on.values():
        rows = modes.json(receiver.node, "map", "dump", "seen_identities")
        known = {row["identity"] for row in rows if row["endpoint_id"] == receiver.id}
        assert {w.identity for w in on.values() if w != receiver} <= known


def test_a_node_reaches_endpoints_of_native_peers_as_remote_node(
    modes: Mesh, on: dict[str, Workload]
) -> None:
    settled(modes)
    receiver = on["east-2"]
    for address in (receiver.ipv4, receiver.ipv6):
        modes.run("east-1", "ping", "-c", "2", "-i", "0.05", "-W", "2", address)
    rows = modes.json("east-2", "map", "dump", "seen_identities")
    assert 6 in {row["identity"] for row in rows if row["endpoint_id"] == receiver.id}


def test_where_the_native_way_breaks_the_tunnel_takes_over_and_back_again(
    modes: Mesh, on: dict[str, Workload]
) -> None:
    settled(modes)
    rules = "add table netdev block\n"
    for number, port in enumerate(("east-1", "east-2")):
        chain = f"netdev block from{number}"
        rules += f"add chain {chain} {{ type filter hook ingress device {port} priority 0; }}\n"
        rules += f"add rule {chain} ip saddr 10.1.0.0/16 drop\n"
        rules += f"add rule {chain} ip6 saddr fd00:10:1::/48 drop\n"
    switch = modes[SWITCH]
    done = subprocess.run(
        switch.argv(["nft", "-f", "-"]), input=rules, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    try:
        eventually(lambda: seen_modes(modes, "east-1")["east-2"] == "geneve", within_s=60)
        eventually(lambda: seen_modes(modes, "east-2")["east-1"] == "geneve", within_s=60)
        addresses = {on["east-2"].ipv4, on["east-2"].ipv6}
        assert reached(modes.inside(on["east-1"], tries(sorted(addresses)))) == addresses
    finally:
        switch.exec("nft delete table netdev block", check=True)
    settled(modes)


def test_a_node_may_get_another_underlay_address_and_all_follow(
    modes: Mesh, on: dict[str, Workload]
) -> None:
    """Last in the file: afterwards west-2 lives elsewhere."""
    old, new = UNDERLAY["west-2"], "172.31.0.32"

    change = f"ip addr del {old}/24 dev eth1; ip addr add {new}/24 dev eth1"
    modes.run("west-2", "sh", "-ec", change)

    for node in ("east-1", "east-2", "west-1"):
        eventually(
            lambda n=node: new in {row["address"] for row in modes.json(n, "status")["peers"]},
            within_s=20,
        )
    assert old not in {row["address"] for row in modes.json("west-1", "map", "dump", "nodes")}
    modes.run("west-2", "meshnet", "status", "--wait", "--timeout", "20s")
    moved = on["west-2"]
    for other in (on["east-1"], on["west-1"]):
        for source, target in ((other, moved), (moved, other)):
            wanted = {target.ipv4, target.ipv6}

            def through(s: Workload = source, w: set[str] = wanted) -> bool:
                return reached(modes.inside(s, tries(sorted(w)))) == w

            eventually(through, within_s=10)
