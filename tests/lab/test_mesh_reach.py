"""Two clusters are one flat network: every endpoint is listed, known and reached everywhere."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from tests.support.formed import NODES, PORT, Mesh, Workload, eventually

pytestmark = pytest.mark.lab

LIST_KEYS = {
    "name", "namespace", "cluster", "node", "id", "state", "identity", "labels", "ipv4", "ipv6",
}  # fmt: skip


def tries(addresses: list[str]) -> str:
    """A script that prints a line an address: whether it answers ping, and TCP."""
    lines = []
    for address in addresses:
        url = f"http://[{address}]:{PORT}/" if ":" in address else f"http://{address}:{PORT}/"
        ping = f"ping -q -c 2 -i 0.05 -W 2 {address} >/dev/null && echo ping"
        tcp = f"curl -gsf -o /dev/null --max-time 5 {url} && echo tcp"
        lines.append(f'{{ p=$({ping}); t=$({tcp}); echo "{address} $p $t"; }} &')
    return "\n".join([*lines, "wait"])


def reached(output: str) -> set[str]:
    return {line.split()[0] for line in output.splitlines() if line.endswith(" ping tcp")}


def test_every_node_lists_every_endpoint_of_the_mesh_with_the_promised_keys(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    def same_everywhere() -> bool:
        lists = list(mesh.each("endpoint", "list", "--all-clusters").values())
        return all(rows == lists[0] for rows in lists) and len(lists[0]) == len(workloads)

    eventually(same_everywhere, within_s=3)
    for rows in mesh.each("endpoint", "list", "--all-clusters").values():
        assert {row["name"] for row in rows} == set(workloads)
        for row in rows:
            assert row.keys() >= LIST_KEYS
            assert row["state"] == "ready"
            assert row["labels"] == {"app": row["name"]}
            assert (row["identity"] >> 16) == {"east": 1, "west": 2}[row["cluster"]]
            assert Workload.of(row) == workloads[row["name"]]


def test_every_pair_of_endpoints_answers_ping_and_tcp_in_both_families(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    for source in workloads.values():
        others = [w for w in workloads.values() if w != source]
        addresses = [a for other in others for a in (other.ipv4, other.ipv6)]
        assert reached(mesh.inside(source, tries(addresses))) == set(addresses), source.name


def test_a_node_and_its_own_endpoints_reach_each_other(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    web = workloads["web"]
    own = [web.ipv4, web.ipv6, workloads["web-too"].ipv4]
    assert reached(mesh.run("east-1", "sh", "-c", tries(own))) == set(own)
    node = [row["address"] for row in mesh.json("east-1", "map", "dump", "ipcache")
            if row["identity"] == 1]  # fmt: skip
    assert len(node) == 4, "the node itself: gateway and underlay, in both families"
    for address in node:
        mesh.inside(web, f"ping -c 1 -W 2 {address}")


def test_the_receivers_node_counts_the_senders_identity(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    sender, receiver = workloads["cache"], workloads["api"]

    def counted() -> int:
        rows = mesh.json(receiver.node, "map", "dump", "seen_identities")
        wanted = (receiver.id, sender.identity)
        return sum(r["packets"] for r in rows if (r["endpoint_id"], r["identity"]) == wanted)

    before = counted()
    mesh.inside(sender, f"ping -q -c 7 -i 0.02 -W 2 {receiver.ipv4}")
    assert counted() - before == 7


def test_a_new_endpoint_is_reached_from_the_other_cluster_within_a_second_of_run(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    db = workloads["db"]
    for number, node in enumerate(("east-1", "east-2")):
        name = f"fresh-{number}"
        mesh.start(node, name)
        returned = time.time()
        try:
            fresh = mesh.workload(node, name)
            one = f"until ping -c 1 -W 1 {fresh.ipv4} >/dev/null; do :; done"
            answered = float(mesh.inside(db, f"timeout 10 sh -c '{one}'; date +%s.%N"))
            print(f"{name} answered {answered - returned:.2f} s after run")
            assert answered - returned < 1.0
        finally:
            mesh.stop(node, name)


def test_an_endpoint_is_gone_from_every_list_and_map_within_seconds_of_its_end(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    mesh.start("east-2", "brief")
    address = mesh.workload("east-2", "brief").ipv4

    def knowing() -> set[str]:
        lists = mesh.each("endpoint", "list", "--all-clusters")
        maps = mesh.each("map", "dump", "ipcache")
        return {node for node in NODES if any(r["name"] == "brief" for r in lists[node])} | {
            node for node in NODES if any(r["address"] == address for r in maps[node])
        }

    eventually(lambda: knowing() == set(NODES), within_s=3)
    mesh.stop("east-2", "brief")
    eventually(lambda: not knowing(), within_s=3)


def test_streams_arrive_whole_across_the_mesh(mesh: Mesh, workloads: dict[str, Workload]) -> None:
    """Full-size segments in both families: a path that is too narrow would stall here."""
    sender, receiver = workloads["web"], workloads["cache"]
    size = 64 << 20
    for port, address in ((9001, receiver.ipv4), (9002, receiver.ipv6)):
        listen = (
            f"import socket; s = socket.create_server(('::', {port}), family=socket.AF_INET6, "
            "dualstack_ipv6=True); print(flush=True); c, _ = s.accept(); n = 0\n"
            "while d := c.recv(1 << 20): n += len(d)\nprint(n)"
        )
        argv = mesh[receiver.node].argv(
            ["meshnet", "exec", receiver.name, "--", "python3", "-c", listen]
        )
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        server.stdout.readline()
        send = (
            f"import socket; c = socket.create_connection(('{address}', {port})); "
            f"[c.sendall(bytes(1 << 20)) for _ in range({size >> 20})]; c.close()"
        )
        mesh.inside(sender, f'timeout 30 python3 -c "{send}"')
        out, _ = server.communicate(timeout=30)
        assert int(re.findall(r"\d+", out)[0]) == size
