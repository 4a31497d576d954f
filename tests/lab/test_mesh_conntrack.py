"""What nodes remember of real flows between two clusters, and of packets they refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.formed import PORT, Mesh, Workload, eventually

pytestmark = pytest.mark.lab

ECHO_PORT, CLOSED_PORT = 9100, 9199
ECHO = f"""
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(41, 26, 0)  # IPV6_V6ONLY
for level, name in ((0, 10), (41, 23)):  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER: fragment, no DF
    s.setsockopt(level, name, 0)
s.bind(('::', {ECHO_PORT}))
while True:
    data, peer = s.recvfrom(65535)
    s.sendto(data, peer)
"""
CLIENT = """
import socket
for address, level, name in (('{ipv4}', 0, 10), ('{ipv6}', 41, 23)):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(level, name, 0)
    s.settimeout(5)
    s.bind(('', {source}))
    s.connect((address, {port}))
    sent = bytes(range(256)) * {blocks}
    try:
        s.send(sent)
        print('same' if s.recv(65535) == sent else 'other')
    except OSError as error:
        print(type(error).__name__)
    s.close()
"""


@pytest.fixture
def echo(mesh: Mesh) -> Iterator[Workload]:
    """An endpoint of the other cluster that sends back whatever datagram it gets."""
    mesh.start("west-2", "echo", ("python3", "-c", ECHO))
    yield mesh.workload("west-2", "echo")
    mesh.stop("west-2", "echo")


def ask(mesh: Mesh, sender: Workload, to: Workload, port: int, source: int, blocks: int) -> str:
    script = CLIENT.format(ipv4=to.ipv4, ipv6=to.ipv6, port=port, source=source, blocks=blocks)
    return mesh.inside(sender, f'timeout 20 python3 -c "{script}"')


def flows(mesh: Mesh, node: str, endpoint: str, **wanted: Any) -> list[dict[str, Any]]:
    rows = mesh.json(node, "map", "dump", "conntrack")
    wanted["endpoint"] = endpoint
    return [row for row in rows if wanted.items() <= row.items()]


def counted(mesh: Mesh, node: str, counter: str) -> int:
    rows = mesh.json(node, "map", "dump", "counters")
    return sum(row["packets"] for row in rows if row["counter"] == counter)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_tcp_connection_is_one_flow_on_each_node_until_it_is_closed(
    mesh: Mesh, workloads: dict[str, Workload], family: str
) -> None:
    web, db = workloads["web"], workloads["db"]
    here, there = getattr(web, family), getattr(db, family)
    url = f"http://[{there}]:{PORT}/" if ":" in there else f"http://{there}:{PORT}/"

    local = mesh.inside(web, f"curl -gsf -o /dev/null -w '%{{local_port}}' {url}")

    flow = {"protocol": "tcp", "state": "closed", "guessed": False}
    mine = {"peer": there, "endpoint_port": int(local), "peer_port": PORT, "began": "endpoint"}
    theirs = {"peer": here, "endpoint_port": PORT, "peer_port": int(local), "began": "peer"}
    eventually(lambda: len(flows(mesh, web.node, here, **mine, **flow)) == 1, within_s=5)
    eventually(lambda: len(flows(mesh, db.node, there, **theirs, **flow)) == 1, within_s=5)
    (row,) = flows(mesh, web.node, here, **mine)
    assert row["remote_identity"] == db.identity


def test_big_datagrams_go_in_fragments_and_come_back_in_both_families(
    mesh: Mesh, workloads: dict[str, Workload], echo: Workload
) -> None:
    web = workloads["web"]

    assert ask(mesh, web, echo, ECHO_PORT, 9200, 80).split() == ["same", "same"]

    for here in (web.ipv4, web.ipv6):
        (row,) = flows(mesh, web.node, here, protocol="udp", endpoint_port=9200)
        assert (row["peer_port"], row["state"]) == (ECHO_PORT, "established"), "and no flow more"
    assert "FRAGMENT_WITHOUT_FIRST" not in mesh.drops(web.node) | mesh.drops(echo.node)


def test_a_refusal_by_icmp_reaches_the_sender_as_part_of_its_flow(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    web, db = workloads["web"], workloads["db"]
    before = {node: counted(mesh, node, "related") for node in (web.node, db.node)}

    answers = ask(mesh, web, db, CLOSED_PORT, 9201, 1).split()

    assert answers == ["ConnectionRefusedError", "ConnectionRefusedError"]
    for node, packets in before.items():
        assert counted(mesh, node, "related") == packets + 2, f"{node}: one in each family"


def test_a_ping_is_one_flow_with_its_answers(mesh: Mesh, workloads: dict[str, Workload]) -> None:
    web, db = workloads["web"], workloads["db"]
    for there, here, protocol in (
        (db.ipv4, web.ipv4, "icmp"),
        (db.ipv6, web.ipv6, "icmpv6"),
    ):
        mesh.inside(web, f"ping -q -c 3 -i 0.05 -e 4711 {there}")
        (row,) = flows(mesh, web.node, here, peer=there, protocol=protocol, endpoint_port=4711)
        assert (row["state"], row["began"]) == ("established", "endpoint")


def test_the_newest_drops_are_shown_with_identity_and_line(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    web, db = workloads["web"], workloads["db"]
    nobody = db.ipv4.rpartition(".")[0] + ".253"
    mesh.inside(web, f"ping -q -c 1 -W 1 {nobody} || true")

    (row,) = [r for r in mesh.json(web.node, "drops", "--last", "50")
              if r["destination"] == nobody]  # fmt: skip
    assert (row["reason"], row["direction"]) == ("UNKNOWN_DESTINATION", "egress")
    assert (row["source"], row["source_identity"]) == (web.ipv4, web.identity)
    assert row["file"] == "egress.h"
    assert f"egress.h:{row['line']}" in mesh.run(web.node, "meshnet", "drops", "--last", "50")


def test_a_labs_hosts_share_one_machines_memory(mesh: Mesh, workloads: dict[str, Workload]) -> None:
    (row,) = [r for r in mesh.json("east-1", "map", "list") if r["name"] == "conntrack"]
    assert row["max_entries"] == 16_384
