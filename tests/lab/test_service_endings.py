"""Clients of a backend that ends, or is gone: what they had, what they are told, where they go.

web (east-1) asks end-1 (east-1) and end-2 (east-2), which answer with their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from tests.lab.test_service_clients import HOSTS, addresses, answers, start, until_answering
from tests.lab.test_services import active, apply, shown
from tests.support.clients import Client
from tests.support.formed import Mesh, Workload, eventually
from tests.support.sockets import WAITER

pytestmark = pytest.mark.lab

NODES = {"end-1": "east-1", "end-2": "east-2"}
GONE = "103"
"""ECONNABORTED, as WAITER says it."""
FRONT = "[{name: http, port: 80}, {name: echo, port: 7, protocol: UDP}]"
BACK = "[{name: http, port: 8080}, {name: echo, port: 5300, protocol: UDP}]"
ENDING = "{ready: false, serving: true, terminating: true}"
KEPT = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=5)
while True:
    connection.request("GET", "/")
    print(connection.getresponse().read().decode().strip(), flush=True)
    sys.stdin.readline()
"""
"""One connection, a request for each line of stdin."""
SELECTED = """
apiVersion: v1
kind: Service
metadata: {name: ending}
spec:
  selector: {%s}
  ipFamilyPolicy: PreferDualStack
  ports: [{port: 7, targetPort: 5300, protocol: UDP}]
"""


@pytest.fixture(scope="module")
def pair(mesh: Mesh, workloads: dict[str, Workload]) -> Iterator[dict[str, Workload]]:
    for name, node in NODES.items():
        start(mesh, node, name, "ending")
    found = {name: mesh.workload(node, name) for name, node in NODES.items()}
    until_answering(mesh, workloads["web"], found.values())
    yield found
    for name, node in NODES.items():
        mesh.stop(node, name)


def close(clients: Iterable[Client]) -> None:
    for client in clients:
        client.close()


def drain(mesh: Mesh, pair: dict[str, Workload], **conditions: str) -> None:
    """Service `drain` of the members that are named, each with its conditions."""
    members = ", ".join(
        f"{{addresses: [{pair[name.replace('_', '-')].ipv4}], conditions: {condition}}}"
        for name, condition in conditions.items()
    )
    text = HOSTS.format(name="drain", ports=FRONT, slice_ports=BACK, endpoints=f"[{members}]")
    apply(mesh, "east-1", text)


def states(mesh: Mesh, pair: dict[str, Workload]) -> dict[str, str]:
    names = {workload.ipv4: name for name, workload in pair.items()}
    rows = shown(mesh, "east-1", "drain")["backends"]
    return {names[row["address"]]: row["state"] for row in rows}


def test_a_backend_that_ends_finishes_what_it_has_and_its_datagrams_are_told_when_it_is_gone(
    mesh: Mesh, workloads: dict[str, Workload], pair: dict[str, Workload]
) -> None:
    web = workloads["web"]
    clients: list[Client] = []
    try:
        drain(mesh, pair, end_1="{}")
        eventually(lambda: states(mesh, pair) == {"end-1": "active"}, within_s=10)
        (address,) = addresses(mesh, "drain")
        kept = Client(mesh, web, KEPT, address)
        waiting = Client(mesh, web, WAITER, address, "7", address, "7")
        direct = Client(mesh, web, WAITER, pair["end-1"].ipv4, "5300", address, "7")
        clients += [kept, waiting, direct]
        assert [each.said(0) for each in clients] == ["end-1"] * 3

        drain(mesh, pair, end_1=ENDING, end_2="{}")
        ending = {"end-1": "terminating", "end-2": "active"}
        eventually(lambda: states(mesh, pair) == ending, within_s=10)
        assert set(answers(mesh, web, address)) == {"end-2"}
        kept.ask()
        assert kept.said(1) == "end-1"
        assert waiting.lines == direct.lines == ["end-1"], "it may still answer"

        drain(mesh, pair, end_2="{}")
        assert [waiting.said(1), waiting.said(2)] == [GONE, "end-2"]
        kept.ask()
        assert kept.said(2) == "end-1", "a stream is ended by its own ends"
        assert direct.lines == ["end-1"], "nobody translated this one"
    finally:
        close(clients)
        mesh.run("east-1", "meshnet", "delete", "service", "drain")
        mesh.run("east-1", "meshnet", "delete", "endpointslice", "drain-1")


def test_a_datagram_client_of_an_endpoint_that_was_deleted_reaches_another(
    mesh: Mesh, workloads: dict[str, Workload], pair: dict[str, Workload]
) -> None:
    """Clients in an endpoint and on the node itself, in both families."""
    clients: list[Client] = []
    try:
        apply(mesh, "east-1", SELECTED % "which: end-1")
        eventually(lambda: len(active(mesh, "east-1", "ending")) == 2, within_s=15)
        clients = [
            Client(mesh, where, WAITER, address, "7", address, "7")
            for where in (workloads["web"], "east-1")
            for address in addresses(mesh, "ending")
        ]
        assert [client.said(0) for client in clients] == ["end-1"] * 4
        apply(mesh, "east-1", SELECTED % "app: ending")
        eventually(lambda: len(active(mesh, "east-1", "ending")) == 4, within_s=15)
        assert [client.lines for client in clients] == [["end-1"]] * 4
        mesh.stop(NODES["end-1"], "end-1")
        for client in clients:
            assert [client.said(1), client.said(2)] == [GONE, "end-2"]
        start(mesh, NODES["end-1"], "end-1", "ending")
    finally:
        close(clients)
        mesh.run("east-1", "meshnet", "delete", "service", "ending")
