"""Real packets between an endpoint and a host outside of the mesh."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.support.bpf import run
from tests.support.outside import (
    ECHO_PORT,
    FAMILY,
    NODE,
    ROUTER,
    SERVER,
    Outside,
    echoing,
    outside,
)
from tests.support.two_nodes import inside, lost_pings
from tests.support.world import POOL

pytestmark = [pytest.mark.bpf, pytest.mark.netlink]

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
IP_RECVERR, IPV6_RECVERR = 11, 25


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("bpf")) as made:
        yield made


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def open_socket(
    namespace: str, family: int, kind: socket.SocketKind, port: int = 0
) -> socket.socket:
    with inside(namespace):
        made = socket.socket(FAMILY[family], kind)
    made.settimeout(20)
    if port:
        made.bind(("", port))
    made.connect((SERVER[family], ECHO_PORT))
    return made


def echoed(client: socket.socket, data: bytes) -> bytes:
    """Send it all and read as much; at once, since both ends may be slow to read."""
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    found = b""
    while len(found) < len(data):
        part = client.recv(1 << 16)
        assert part, "the connection ended early"
        found += part
    sender.join(timeout=20)
    return found


def assert_hidden(peer: tuple[str, int], family: int) -> None:
    assert peer[0] == NODE[family]
    assert POOL[0] <= peer[1] <= POOL[1]


@pytest.mark.parametrize("offload", ["on", "off"], ids=["summed by devices", "by hosts"])
def test_two_megabytes_of_tcp_there_and_back(there: Outside, family: int, offload: str) -> None:
    for namespace in (there.server, there.endpoint):
        run(f"ip netns exec {namespace} ethtool -K eth0 tx {offload}")
    data = bytes(range(256)) * 8192
    with (
        echoing(there.server, SERVER[family], kind=STREAM) as echo,
        open_socket(there.endpoint, family, STREAM) as client,
    ):
        assert echoed(client, data) == data, there.drops()

    assert_hidden(echo.seen[0], family)


@pytest.mark.parametrize("size", [10, 4000], ids=["one packet", "fragments"])
def test_udp_there_and_back(there: Outside, family: int, size: int) -> None:
    with (
        echoing(there.server, SERVER[family], kind=DATAGRAM) as echo,
        open_socket(there.endpoint, family, DATAGRAM) as client,
    ):
        for number in range(5):
            data = bytes([number]) * size
            client.send(data)
            assert client.recv(1 << 16) == data, there.drops()

    assert_hidden(echo.seen[0], family)
    assert len(set(echo.seen)) == 1, "a flow keeps its port"


def test_ping(there: Outside, family: int) -> None:
    before = there.counters().get("unmasqueraded", 0)

    assert lost_pings(there.endpoint, SERVER[family]) == 0, there.drops()
    assert lost_pings(there.endpoint, SERVER[family], size=3000) == 0, "in fragments"
    assert there.counters()["unmasqueraded"] > before


def test_the_nodes_own_sockets_go_on_beside_the_endpoints(there: Outside, family: int) -> None:
    """To the same server, and from the very ports that the endpoint's socket has."""
    with (
        echoing(there.server, SERVER[family], kind=DATAGRAM) as echo,
        open_socket(there.endpoint, family, DATAGRAM, 50200) as endpoint,
        open_socket(there.node, family, DATAGRAM, 50201) as own,
    ):
        for number in range(5):
            for client, word in ((endpoint, b"endpoint"), (own, b"node")):
                client.send(word + bytes([number]))
                assert client.recv(100) == word + bytes([number]), there.drops()
        assert set(echo.seen) == {(NODE[family], 50200), (NODE[family], 50201)}
    assert lost_pings(there.node, SERVER[family]) == 0


def test_the_node_is_called_from_outside(there: Outside, family: int) -> None:
    with (
        inside(there.node),
        socket.create_server((NODE[family], 50300), family=FAMILY[family]) as listener,
    ):
        listener.settimeout(10)
        with inside(there.server), socket.create_connection((NODE[family], 50300), 10) as caller:
            answered, _ = listener.accept()
            with answered:
                answered.sendall(b"here")
                assert caller.recv(10) == b"here"


def test_a_closed_port_is_reported_to_the_endpoint(there: Outside, family: int) -> None:
    with open_socket(there.endpoint, family, DATAGRAM) as client:
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)
    with pytest.raises(ConnectionRefusedError):
        open_socket(there.endpoint, family, STREAM)


@pytest.mark.parametrize("hops", [1, 2])
def test_routers_on_the_way_tell_who_they_are(there: Outside, family: int, hops: int) -> None:
    """As traceroute asks: the offender's address is in the socket's error queue."""
    gateway = {4: "10.1.0.1", 6: "fd00:10:1::1"}[family]
    level, ttl, queue = {
        4: (socket.IPPROTO_IP, socket.IP_TTL, IP_RECVERR),
        6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, IPV6_RECVERR),
    }[family]
    with open_socket(there.endpoint, family, DATAGRAM) as client:
        client.setsockopt(level, ttl, hops)
        client.setsockopt(level, queue, 1)
        client.send(b"?")
        with pytest.raises(OSError, match="No route to host"):
            client.recv(10)
        _, messages, _, _ = client.recvmsg(100, 512, socket.MSG_ERRQUEUE)
    data = next(data for _, kind, data in messages if kind == queue)
    size = struct.calcsize("=IBBBBII")
    packed = data[size + 4 : size + 8] if family == 4 else data[size + 8 : size + 24]
    offender = socket.inet_ntop(FAMILY[family], packed)

    own = {gateway, NODE[family]}
    assert offender == ROUTER[family] if hops == 2 else offender in own


def test_a_narrow_link_beyond_is_found_by_path_mtu_discovery(there: Outside, family: int) -> None:
    there.narrow(1300)
    data = bytes(range(256)) * 2048
    try:
        with (
            echoing(there.server, SERVER[family], kind=STREAM),
            open_socket(there.endpoint, family, STREAM) as client,
        ):
            assert echoed(client, data) == data, there.drops()
        route = run(f"ip -n {there.endpoint} route get {SERVER[family]}")
        assert "mtu 1300" in route, route
    finally:
        there.narrow(1500)
        run(f"ip -n {there.endpoint} -{family} route flush cache")


def test_an_endpoint_reaches_itself(there: Outside, family: int) -> None:
    own = {4: "10.1.0.10", 6: "fd00:10:1::10"}[family]

    assert lost_pings(there.endpoint, own) == 0


def test_no_packet_was_summed_wrong(there: Outside) -> None:
    """Last: after all of the above, no host has seen a bad checksum."""
    for namespace in (there.server, there.endpoint, there.node):
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, "nstat", "-asz", "*Csum*", "Icmp*CsumErrors"],
            capture_output=True,
            text=True,
            check=True,
        )
        counts = [line.split()[:2] for line in done.stdout.splitlines() if "CsumErr" in line]
        assert counts, done.stdout
        assert {name: n for name, n in counts if n != "0"} == {}, namespace
