"""The drill: every host of a cluster dies under traffic to a global service, and comes back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.lab.test_services import active, apply, service, shown
from tests.support.formed import SWITCH, Mesh, eventually, formed

pytestmark = pytest.mark.lab

RATE, SECONDS = 200, 30
DIES_AT, RETURNS_AT = 5.0, 14.0
FAILS_FOR_S = 3.0
CLIENT = str(Path(__file__).parents[1] / "support" / "requests.py")
NAME_SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = sys.argv[1].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
NODES = {"east": ("east-1", "east-2"), "west": ("west-1", "west-2")}


@attrs.frozen
class Request:
    begun: float
    took: float
    backend: str | None


@pytest.fixture(scope="module")
def drilled() -> Iterator[Mesh]:
    """One backend on every host, of a service that is global, and a client on east-1."""
    with formed("drill") as mesh:
        for nodes in NODES.values():
            for node in nodes:
                labels = ("--label", "app=front")
                command = ("python3", "-c", NAME_SERVER, node)
                mesh.run(node, "meshnet", "run", "--name", f"front-{node}", *labels, "--detach",
                         "--", *command)  # fmt: skip
        mesh.start("east-1", "client")
        manifest = service("front", "front", service_cilium_io__global="true")
        for node in ("east-1", "west-1"):
            apply(mesh, node, manifest)
        eventually(lambda: len(active(mesh, "east-1", "front")) == 8, within_s=20)
        yield mesh


def ask(mesh: Mesh) -> subprocess.Popen[str]:
    """RATE requests a second from the client on east-1, for SECONDS."""
    address = shown(mesh, "east-1", "front")["frontends"][0]["address"]
    words = ["meshnet", "exec", "client", "--", sys.executable, CLIENT, address, "80"]
    argv = mesh["east-1"].argv([*words, str(RATE), str(SECONDS)])
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def wire(mesh: Mesh, state: str) -> None:
    """Every host of cluster west loses its cable at the switch, or has it back, at once."""
    commands = "; ".join(f"ip link set {node} {state}" for node in NODES["west"])
    mesh.run(SWITCH, "sh", "-ec", commands)


def test_clients_hardly_notice_a_cluster_that_dies_and_not_at_all_its_return(
    drilled: Mesh,
) -> None:
    asking = ask(drilled)
    began = time.monotonic()
    time.sleep(DIES_AT)
    died = time.monotonic()
    wire(drilled, "down")
    time.sleep(max(0.0, began + RETURNS_AT - time.monotonic()))
    returned = time.monotonic()
    wire(drilled, "up")
    output, _ = asking.communicate(timeout=120)

    requests = [Request(*each) for each in json.loads(output)]
    assert len(requests) == RATE * SECONDS
    failed = [request for request in requests if request.backend is None]
    assert all(died - 1 <= request.begun for request in failed), "before anything happened"
    late = [request for request in failed if request.begun > died + FAILS_FOR_S]
    assert not late, f"{len(late)} failed later, the last {late[-1].begun - died:.1f} s after"
    before = Counter(r.backend for r in requests if r.begun < died - 1)
    assert set(before) == {"east-1", "east-2", "west-1", "west-2"}
    meanwhile = {r.backend for r in requests if died + FAILS_FOR_S < r.begun < returned}
    assert meanwhile == {"east-1", "east-2"}
    afterwards = Counter(r.backend for r in requests if r.begun > returned + 6)
    assert set(afterwards) == {"east-1", "east-2", "west-1", "west-2"}
