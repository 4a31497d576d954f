"""Real sockets that nobody asked, on two nodes: a service is there in the packets alone."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from ipaddress import ip_address

import pytest

from meshnet.model.dataplane import Mode, ServiceRow
from meshnet.model.service import Frontend, Protocol
from tests.support.bpf import run
from tests.support.sockets import servers
from tests.support.two_nodes import Host, Pair, inside, two_nodes

pytestmark = [pytest.mark.bpf, pytest.mark.netlink]

VIP = {4: "100.64.0.10", 6: "fd00:100:64::10"}
EAST = {4: "10.1.0.10", 6: "fd00:10:1::10"}
WEST = {4: "10.2.0.10", 6: "fd00:10:2::10"}
NODE = {4: "10.1.0.1", 6: "fd00:10:1::1"}
BACK = 9100
MEGABYTES = bytes(range(256)) * 16384
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_nodes(tmp_path_factory.mktemp("bpf")) as nodes:
        nodes.travel_over(4)
        yield nodes


def serve(pair: Pair, family: int, *backends: str) -> None:
    """On the client's node; nobody else needs to know."""
    rows = {
        Frontend(ip_address(VIP[family]), 80, protocol): ServiceRow(
            slots=tuple(Frontend(ip_address(one), BACK, protocol) for one in backends)
        )
        for protocol in Protocol
    }
    pair.dataplanes[pair.east.name].update_services(rows, ())


@contextlib.contextmanager
def server(
    namespace: str, address: str, kind: socket.SocketKind, serve: Callable[[socket.socket], None]
) -> Iterator[None]:
    """One that serves one client, in a thread; an error of it fails the test."""
    failed: list[BaseException] = []

    def work(opened: socket.socket) -> None:
        try:
            with opened:
                serve(opened)
        except BaseException as error:
            failed.append(error)

    with inside(namespace):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        opened = socket.socket(family, kind)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.settimeout(20)
        opened.bind((address, BACK))
        if kind is socket.SOCK_STREAM:
            opened.listen()
    thread = threading.Thread(target=work, args=(opened,))
    thread.start()
    yield
    thread.join(30)
    assert not failed, failed


def digest_back(opened: socket.socket) -> None:
    """Answers with the digest of what it got."""
    client, _ = opened.accept()
    with client:
        client.settimeout(20)
        digest = sha256()
        while data := client.recv(1 << 16):
            digest.update(data)
        client.sendall(digest.hexdigest().encode())


def echo_back(opened: socket.socket) -> None:
    for _ in range(20):
        data, client = opened.recvfrom(1 << 16)
        opened.sendto(data[::-1], client)


def upload(client: str, family: int) -> str:
    """From this namespace to the service: what the server says of it."""
    with (
        inside(client),
        socket.create_connection((VIP[family], 80), timeout=20) as opened,
    ):
        assert opened.getpeername()[:2] == (VIP[family], 80)
        opened.sendall(MEGABYTES)
        opened.shutdown(socket.SHUT_WR)
        return opened.makefile().read()


def echoes(client: str, family: int) -> int:
    """How many datagrams of different sizes came back from the frontend as they should; the
    larger ones travel in fragments."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with inside(client), socket.socket(kind, socket.SOCK_DGRAM) as opened:
        opened.settimeout(20)
        good = 0
        for turn in range(20):
            data = bytes([turn]) * (100 + 300 * turn) + b"end"
            opened.sendto(data, (VIP[family], 80))
            answer, peer = opened.recvfrom(1 << 16)
            good += (answer, peer[:2]) == (data[::-1], (VIP[family], 80))
        return good


@pytest.mark.parametrize("mode", Mode)
@FAMILIES
def test_four_megabytes_of_tcp_and_datagrams_reach_a_backend_elsewhere(
    pair: Pair, family: int, mode: Mode
) -> None:
    pair.travel_over(4, mode)
    serve(pair, family, WEST[family])

    with server(pair.west.endpoint, WEST[family], socket.SOCK_STREAM, digest_back):
        assert upload(pair.east.endpoint, family) == sha256(MEGABYTES).hexdigest(), pair.drops(
            pair.east
        )
    with server(pair.west.endpoint, WEST[family], socket.SOCK_DGRAM, echo_back):
        assert echoes(pair.east.endpoint, family) == 20, pair.drops(pair.east)
    assert pair.west.identity in pair.seen(pair.east)


@FAMILIES
def test_an_endpoint_reaches_itself_by_a_service(pair: Pair, family: int) -> None:
    serve(pair, family, EAST[family])

    with server(pair.east.endpoint, EAST[family], socket.SOCK_STREAM, digest_back):
        assert upload(pair.east.endpoint, family) == sha256(MEGABYTES).hexdigest(), pair.drops(
            pair.east
        )
    with server(pair.east.endpoint, EAST[family], socket.SOCK_DGRAM, echo_back):
        assert echoes(pair.east.endpoint, family) == 20, pair.drops(pair.east)


@pytest.fixture
def behind(pair: Pair) -> Iterator[str]:
    """A namespace behind east's endpoint, which forwards for it in its own name."""
    name, router = f"{pair.east.name}-behind", pair.east.endpoint
    run(f"ip netns add {name}")
    try:
        for command in (
            f"ip -n {router} link add behind type veth peer name eth0 netns {name}",
            f"ip -n {router} link set behind up",
            f"ip -n {router} addr add 192.168.77.1/24 dev behind",
            f"ip -n {router} addr add fd77::1/64 dev behind nodad",
            f"ip -n {name} link set eth0 mtu 1430 up",
            f"ip -n {name} addr add 192.168.77.2/24 dev eth0",
            f"ip -n {name} addr add fd77::2/64 dev eth0 nodad",
            f"ip -n {name} route add default via 192.168.77.1",
            f"ip -n {name} route add default via fd77::1",
            f"ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1",
            f"ip netns exec {router} sysctl -qw net.ipv6.conf.all.forwarding=1",
            f"ip netns exec {router} nft add table inet hide",
            f"ip netns exec {router} nft add chain inet hide out "
            "{ type nat hook postrouting priority 100 ; }",
            f"ip netns exec {router} nft add rule inet hide out oifname eth0 masquerade",
        ):
            run(command)
        yield name
        run(f"ip netns exec {router} nft delete table inet hide")
    finally:
        run(f"ip netns del {name}")


@FAMILIES
def test_what_an_endpoint_forwards_reaches_a_backend_too(
    pair: Pair, family: int, behind: str
) -> None:
    """No socket of that endpoint ever asked."""
    serve(pair, family, WEST[family])

    with server(pair.west.endpoint, WEST[family], socket.SOCK_STREAM, digest_back):
        assert upload(behind, family) == sha256(MEGABYTES).hexdigest(), pair.drops(pair.east)
    with server(pair.west.endpoint, WEST[family], socket.SOCK_DGRAM, echo_back):
        assert echoes(behind, family) == 20, pair.drops(pair.east)


@FAMILIES
def test_the_node_itself_can_be_a_backend(pair: Pair, family: int) -> None:
    serve(pair, family, NODE[family])

    with server(pair.east.name, NODE[family], socket.SOCK_STREAM, digest_back):
        assert upload(pair.east.endpoint, family) == sha256(MEGABYTES).hexdigest(), pair.drops(
            pair.east
        )


@FAMILIES
def test_a_change_of_backends_under_connects_loses_none(pair: Pair, family: int) -> None:
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    taken = set()
    with (
        inside(pair.west.endpoint),
        servers({"elsewhere": (WEST[family], BACK)}),
        inside(pair.east.endpoint),
        servers({"itself": (EAST[family], BACK)}),
    ):
        choices = ((WEST[family],), (EAST[family],), (WEST[family], EAST[family]))
        for turn in range(12):
            serve(pair, family, *choices[turn % 3])
            for _ in range(20):
                with socket.socket(kind) as client:
                    client.settimeout(20)
                    client.connect((VIP[family], 80))
                    taken.add(client.recv(64))
    assert taken == {b"elsewhere", b"itself"}


@FAMILIES
def test_a_client_is_refused_at_once_without_a_backend(pair: Pair, family: int) -> None:
    """By the first packet: nothing is sent twice."""
    serve(pair, family)
    before = pair.counters(pair.east)

    with inside(pair.east.endpoint), pytest.raises(ConnectionRefusedError):
        socket.create_connection((VIP[family], 80), timeout=20)
    assert refused_datagram(pair.east, family)

    after = pair.counters(pair.east)
    assert after["resets_sent"] == before["resets_sent"] + 1
    assert after["icmp_errors_sent"] == before["icmp_errors_sent"] + 1


@FAMILIES
def test_a_connection_ends_when_no_backend_is_left(pair: Pair, family: int) -> None:
    over = threading.Event()

    def hold(opened: socket.socket) -> None:
        accepted, _ = opened.accept()
        with accepted:
            accepted.sendall(b"hello")
            assert over.wait(20)

    serve(pair, family, WEST[family])
    with (
        server(pair.west.endpoint, WEST[family], socket.SOCK_STREAM, hold),
        inside(pair.east.endpoint),
        socket.create_connection((VIP[family], 80), timeout=20) as client,
    ):
        assert client.recv(64) == b"hello"
        serve(pair, family)
        client.sendall(b"still there?")
        with pytest.raises(ConnectionResetError):
            client.recv(64)
        over.set()


@pytest.mark.parametrize("backend", [WEST, EAST], ids=["elsewhere", "itself"])
@FAMILIES
def test_a_client_is_refused_by_a_backend_where_nobody_listens(
    pair: Pair, family: int, backend: dict[int, str]
) -> None:
    """TCP by RST, UDP by an ICMP error that quotes what the client sent."""
    serve(pair, family, backend[family])

    with inside(pair.east.endpoint), pytest.raises(ConnectionRefusedError):
        socket.create_connection((VIP[family], 80), timeout=20)
    assert refused_datagram(pair.east, family)


def refused_datagram(host: Host, family: int) -> bool:
    """Whether the kernel tells the socket so before its time is over."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with inside(host.endpoint), socket.socket(kind, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.connect((VIP[family], 80))
        client.send(b"?")
        try:
            client.recv(1)
        except OSError as error:
            return error.errno == errno.ECONNREFUSED
    return False
