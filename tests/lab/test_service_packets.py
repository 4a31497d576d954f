"""Clients that no socket hook sees: namespaces given to the mesh, with processes elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from tests.support.formed import Mesh, Workload, eventually

pytestmark = pytest.mark.lab

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: far}
spec:
  selector: {app: echo}
  ipFamilyPolicy: PreferDualStack
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: echo, port: 7, targetPort: 7007, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: self}
spec:
  selector: {app: stranger}
  ipFamilyPolicy: PreferDualStack
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: echo, port: 7, targetPort: 7007, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  selector: {app: nobody}
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 80, targetPort: 8080}]
"""
NAMES = ("far", "self", "nobody")

SERVE = """
import http.server, socket, threading
echo = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
echo.bind(("::", 7007))
def back():
    while True:
        data, client = echo.recvfrom(65535)
        echo.sendto(data[::-1], client)
threading.Thread(target=back, daemon=True).start()
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Name(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].encode())
    def log_message(self, *words):
        pass
Server(("::", 8080), Name).serve_forever()
"""
"""HTTP that answers with the client's address, and a UDP echo that answers backwards."""

ASK = """
import socket, sys
host, sizes = sys.argv[1], [int(size) for size in sys.argv[2:]]
with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(10)
    for size in sizes:
        s.sendto(b"a" * size + b"b", (host, 7))
        data, peer = s.recvfrom(65535)
        assert data == b"b" + b"a" * size, len(data)
        print(peer[0])
"""


@attrs.frozen
class Stranger:
    """A namespace of a host whose processes are not in the host's cgroup."""

    mesh: Mesh
    node: str
    workload: Workload

    def argv(self, *argv: str) -> list[str]:
        enter = ("nsenter", f"--target={self.mesh[self.node].pid}", "--mount", "--")
        return [*enter, "nsenter", f"--net=/run/netns/{self.workload.name}", "--", *argv]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*argv), capture_output=True, text=True, timeout=60, check=False
        )

    def fetch(self, address: str) -> str:
        """Whom the server that answers has seen, as it says."""
        host = f"[{address}]" if ":" in address else address
        done = self.run("curl", "-sS", "-m", "10", f"http://{host}/")
        return (done.stdout or done.stderr).removeprefix("::ffff:")


@pytest.fixture(scope="module")
def stranger(mesh: Mesh) -> Iterator[Stranger]:
    """On east-1, with servers of its own; gone afterwards, with its services."""
    mesh.run("east-1", "ip", "netns", "add", "stranger")
    try:
        mesh.run("east-1", "meshnet", "endpoint", "add", "stranger", "--netns",
                 "/run/netns/stranger", "--label", "app=stranger")  # fmt: skip
        found = Stranger(mesh, "east-1", mesh.workload("east-1", "stranger"))
        with subprocess.Popen(found.argv(sys.executable, "-c", SERVE)) as serving:
            try:
                yield found
            finally:
                serving.kill()
        mesh.stop("east-1", "stranger")
    finally:
        mesh.run("east-1", "ip", "netns", "del", "stranger")


@pytest.fixture(scope="module")
def addresses(mesh: Mesh, stranger: Stranger) -> Iterator[dict[str, list[str]]]:
    """Of each service, known on the client's node."""
    mesh.start("east-2", "echo", ("python3", "-c", SERVE))
    apply = f"meshnet apply -f - <<'END'\n{SERVICES}\nEND"
    mesh.run("east-2", "sh", "-c", apply)
    try:
        eventually(lambda: known(mesh), within_s=20)
        for served in (stranger.workload, mesh.workload("east-2", "echo")):
            eventually(lambda at=served.ipv4: listens(mesh, at), within_s=20)  # type: ignore[misc]
        yield {name: [f["address"] for f in shown(mesh, name)["frontends"]] for name in NAMES}
    finally:
        for name in NAMES:
            mesh.run("east-2", "meshnet", "delete", "service", name)
        mesh.stop("east-2", "echo")


def shown(mesh: Mesh, name: str) -> Any:
    return mesh.json("east-1", "service", "show", name)


def known(mesh: Mesh) -> bool:
    """All three, and the backends of those that have some, in both families."""
    found = {row["name"] for row in mesh.json("east-1", "service", "list")}
    return set(NAMES) <= found and all(
        len({row["address"] for row in shown(mesh, name)["backends"] if row["state"] == "active"})
        == 2
        for name in ("far", "self")
    )


def listens(mesh: Mesh, address: str) -> bool:
    done = mesh["east-1"].exec(["curl", "-s", "-m", "2", f"http://{address}:8080/"])
    return done.returncode == 0


def test_a_client_reaches_a_backend_on_another_node_and_its_packets_are_translated(
    mesh: Mesh, stranger: Stranger, addresses: dict[str, list[str]]
) -> None:
    for address in set(addresses["far"]):
        seen = stranger.fetch(address)
        assert seen in (stranger.workload.ipv4, stranger.workload.ipv6)
        sizes = ("1", "1000", "4000")
        done = stranger.run(sys.executable, "-c", ASK, address, *sizes)
        assert done.stdout.split() == [address] * 3, done.stderr

    flows = mesh.json("east-1", "map", "dump", "service_flows")
    asked = {flow["server"] for flow in flows if flow["becomes_server_port"] in (8080, 7007)}
    assert asked >= set(addresses["far"])


def test_a_client_reaches_itself_by_its_own_service(
    stranger: Stranger, addresses: dict[str, list[str]]
) -> None:
    for address in set(addresses["self"]):
        assert stranger.fetch(address) == address, "and sees the frontend at the other end"
        done = stranger.run(sys.executable, "-c", ASK, address, "1", "4000")
        assert done.stdout.split() == [address] * 2, done.stderr


def test_hits_are_counted_by_backend(
    mesh: Mesh, stranger: Stranger, addresses: dict[str, list[str]]
) -> None:
    (v4,) = {address for address in addresses["far"] if ":" not in address}

    def hits() -> int:
        rows = shown(mesh, "far")["backends"]
        return sum(row["hits"] for row in rows if ":" not in row["address"])

    before = hits()
    for _ in range(3):
        stranger.fetch(v4)
    assert hits() == before + 3


def test_without_a_backend_a_client_is_refused_at_once(
    mesh: Mesh, stranger: Stranger, addresses: dict[str, list[str]]
) -> None:
    before = mesh.drops("east-1").get("SERVICE_NO_BACKEND", 0)
    for address in set(addresses["nobody"]):
        assert "Couldn't connect" in stranger.fetch(address)
    assert mesh.drops("east-1")["SERVICE_NO_BACKEND"] == before + 2, "by the first packet"


def test_a_client_in_the_nodes_cgroup_is_still_served_at_the_socket(
    mesh: Mesh, workloads: dict[str, Workload], addresses: dict[str, list[str]]
) -> None:
    def asked() -> int:
        rows = mesh.json("east-1", "map", "dump", "counters")
        return sum(row["packets"] for row in rows if row["counter"] == "service_asked")

    before = asked()
    for address in set(addresses["far"]):
        host = f"[{address}]" if ":" in address else address
        assert mesh.inside(workloads["web"], f"curl -s -m 10 http://{host}/")
    assert asked() == before
