"""Real packets between two nodes of two clusters."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from hashlib import sha256

import pytest

from meshnet.model.dataplane import Mode
from tests.support.bpf import run
from tests.support.two_nodes import MAC, Host, Pair, inside, lost_pings, two_nodes

pytestmark = [pytest.mark.bpf, pytest.mark.netlink]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_nodes(tmp_path_factory.mktemp("bpf")) as nodes:
        yield nodes


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("underlay", [4, 6])
@pytest.mark.parametrize("to", ["10.2.0.10", "fd00:10:2::10"])
def test_endpoints_of_two_clusters_ping_each_other(
    pair: Pair, underlay: int, to: str, mode: Mode
) -> None:
    pair.travel_over(underlay, mode)

    assert lost_pings(pair.east.endpoint, to) == 0, pair.drops(pair.east)
    assert pair.east.identity in pair.seen(pair.west)
    assert pair.west.identity in pair.seen(pair.east)


def _receive(host: Host, address: str, ready: threading.Event, got: list[str]) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(host.endpoint), socket.create_server((address, 9000), family=family) as server:
        ready.set()
        server.settimeout(20)
        connection, _ = server.accept()
        digest = sha256()
        with connection:
            connection.settimeout(20)
            while data := connection.recv(1 << 16):
                digest.update(data)
        got.append(digest.hexdigest())


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("underlay", [4, 6])
@pytest.mark.parametrize("to", ["10.2.0.10", "fd00:10:2::10"])
def test_a_megabyte_of_tcp_arrives_unchanged(
    pair: Pair, underlay: int, to: str, mode: Mode
) -> None:
    pair.travel_over(underlay, mode)
    sent = bytes(range(256)) * 16384
    ready, got = threading.Event(), []
    receiver = threading.Thread(target=_receive, args=(pair.west, to, ready, got))
    receiver.start()
    assert ready.wait(10)

    with inside(pair.east.endpoint), socket.create_connection((to, 9000), timeout=20) as sender:
        sender.sendall(sent)
    receiver.join(timeout=30)

    assert got == [sha256(sent).hexdigest()], pair.drops(pair.east)


@pytest.mark.parametrize("address", ["10.1.0.1", "fd00:10:1::1"])
def test_an_endpoint_and_its_node_reach_each_other(pair: Pair, address: str) -> None:
    endpoint = "10.1.0.10" if "." in address else "fd00:10:1::10"

    assert lost_pings(pair.east.endpoint, address) == 0, pair.drops(pair.east)
    assert lost_pings(pair.east.name, endpoint) == 0, pair.drops(pair.east)
    assert 1 in pair.seen(pair.east)


@pytest.mark.parametrize("underlay", [4, 6])
@pytest.mark.parametrize("to", ["10.2.0.10", "fd00:10:2::10"])
def test_a_node_reaches_endpoints_of_another_as_remote_node(
    pair: Pair, underlay: int, to: str
) -> None:
    pair.travel_over(underlay)

    assert lost_pings(pair.east.name, to) == 0, pair.drops(pair.east)
    assert 6 in pair.seen(pair.west)


@pytest.mark.parametrize("underlay", [4, 6])
def test_nodes_reach_each_others_gateway_address(pair: Pair, underlay: int) -> None:
    pair.travel_over(underlay)

    assert lost_pings(pair.east.name, "10.2.0.1") == 0, pair.drops(pair.east)
    assert lost_pings(pair.east.name, "fd00:10:2::1") == 0, pair.drops(pair.east)


@pytest.mark.parametrize("gateway", ["10.1.0.1", "fd00:10:1::1"])
def test_an_endpoint_that_forgot_its_gateways_mac_asks_and_is_answered(
    pair: Pair, gateway: str
) -> None:
    to = "10.2.0.10" if "." in gateway else "fd00:10:2::10"
    ip = f"ip -n {pair.east.endpoint}"
    run(f"{ip} neigh del {gateway} dev eth0")

    assert lost_pings(pair.east.endpoint, to) == 0, pair.drops(pair.east)
    assert f"{gateway} dev eth0 lladdr {MAC}" in run(f"{ip} neigh show")
