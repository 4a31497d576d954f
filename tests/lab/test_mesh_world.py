"""Endpoints and a server outside of the mesh: whom does it see, and does the answer come."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.formed import Mesh, Workload
from tests.support.lab import LABS, deployed
from topology import state
from topology.formation import form

pytestmark = pytest.mark.lab

USUAL = ("--underlay", "eth1")
EXEMPT = ("--non-masquerade-cidr", "203.0.113.0/24", "--non-masquerade-cidr", "2001:db8:eeee::/48")
NODE = {4: "172.32.0.11", 6: "fd32::11"}
SERVER = {4: "198.51.100.7", 6: "2001:db8:64::7"}
EXEMPTED = {4: "203.0.113.7", 6: "2001:db8:eeee::7"}
PORT = 9000
SERVE = f"""
import socket, threading
def stream():
    with socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True) as s:
        while True:
            c, peer = s.accept()
            with c:
                c.sendall(peer[0].removeprefix("::ffff:").encode())
def datagrams():
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    s.bind(("::", {PORT}))
    while True:
        _, messages, _, peer = s.recvmsg(100, 100)
        s.sendmsg([peer[0].removeprefix("::ffff:").encode()], messages, 0, peer)
threading.Thread(target=datagrams, daemon=True).start()
print("ready", flush=True)
stream()
"""
"""Says to everybody who it takes them for, by TCP and by UDP."""

ASK = """
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    s = socket.socket(socket.{family}, kind)
    s.settimeout(5)
    s.connect(("{to}", {port}))
    if kind == socket.SOCK_DGRAM:
        s.send(b"?")
    print(s.recv(100).decode())
"""


@pytest.fixture(scope="module")
def world() -> Iterator[Mesh]:
    name = f"tst-world-{os.getpid()}"
    with deployed(LABS / "world.clab.yml", name=name) as lab:
        loaded = state.load(name)
        options = {"east": (*USUAL, *EXEMPT), "west": (*USUAL, "--no-masquerade")}
        form(loaded, lambda _: None, init=options)
        mesh = Mesh(lab, loaded)
        mesh.start("east-1", "web")
        mesh.start("west-1", "db")
        argv = lab["server"].argv(["python3", "-c", SERVE])
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield mesh
            server.terminate()


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def address(endpoint: Workload, family: int) -> str:
    return endpoint.ipv4 if family == 4 else endpoint.ipv6


def seen_as(mesh: Mesh, endpoint: Workload, to: str) -> list[str]:
    """Whom the server takes the endpoint for, by TCP and by UDP."""
    script = ASK.format(family="AF_INET6" if ":" in to else "AF_INET", to=to, port=PORT)
    argv = ["meshnet", "exec", endpoint.name, "--", "python3", "-c", script]
    return mesh.run(endpoint.node, *argv).split()


def reserved(mesh: Mesh, node: str) -> str:
    return mesh.run(node, "cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").strip()


def test_the_server_sees_the_node_and_the_endpoint_gets_its_answer(
    world: Mesh, family: int
) -> None:
    web = world.workload("east-1", "web")

    assert seen_as(world, web, SERVER[family]) == [NODE[family]] * 2, world.drops("east-1")
    world.inside(web, f"ping -c 3 -i 0.05 -W 2 {SERVER[family]}")

    rows = world.json("east-1", "map", "dump", "nat")
    own = [row for row in rows if row["local"] == address(web, family)]
    assert {row["protocol"] for row in own} == {"tcp", "udp", {4: "icmp", 6: "icmpv6"}[family]}
    assert {row["translated"] for row in own} == {NODE[family]}
    assert "nat" in {row["name"] for row in world.json("east-1", "map", "list")}


def test_an_exempt_destination_sees_the_endpoint(world: Mesh, family: int) -> None:
    web = world.workload("east-1", "web")

    assert seen_as(world, web, EXEMPTED[family]) == [address(web, family)] * 2


def test_turned_off_every_destination_does(world: Mesh, family: int) -> None:
    db = world.workload("west-1", "db")

    assert seen_as(world, db, SERVER[family]) == [address(db, family)] * 2
    assert world.json("west-1", "map", "dump", "nat") == []
    assert reserved(world, "west-1") == ""


def test_endpoints_of_the_mesh_see_each_other_as_ever(world: Mesh, family: int) -> None:
    web, db = world.workload("east-1", "web"), world.workload("west-1", "db")

    world.inside(web, f"ping -c 3 -i 0.05 -W 2 {address(db, family)}")
    world.run("east-1", "ping", "-c", "3", "-i", "0.05", "-W", "2", address(db, family))


def test_the_nodes_own_connections_go_on(world: Mesh, family: int) -> None:
    ask = ASK.format(family="AF_INET6" if family == 6 else "AF_INET", to=SERVER[family], port=PORT)

    assert world.run("east-1", "python3", "-c", ask).split() == [NODE[family]] * 2


def test_a_node_that_leaves_gives_its_ports_back(world: Mesh) -> None:
    """Last: the node is gone afterwards."""
    assert reserved(world, "east-1") == "40000-60999"

    world.run("east-1", "meshnet", "cluster", "leave", "--force")

    assert reserved(world, "east-1") == ""
