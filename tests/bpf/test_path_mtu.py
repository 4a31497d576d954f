"""A path that is narrower than the interface, without a router that would say so.

West's interface takes 1400 bytes; the kernel drops what is longer, and says nothing. Only
what east knows of the path keeps packets from it.
"""

from __future__ import annotations

import errno
import socket
import subprocess
import threading
from collections.abc import Iterator
from hashlib import sha256

import pytest

from tests.support.bpf import node, run
from tests.support.two_nodes import Host, Pair, inside, lost_pings, two_nodes

pytestmark = [pytest.mark.bpf, pytest.mark.netlink]

PATH_MTU = 1400
MEGABYTES = 10
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DONT, PMTUDISC_DO = 10, 23, 0, 2
IP_MTU, IPV6_MTU = 14, 24
V4, V6 = "10.2.0.10", "fd00:10:2::10"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_nodes(tmp_path_factory.mktemp("bpf")) as nodes:
        for host in (nodes.east, nodes.west):
            # the wire takes packets only: what is merged could not be measured on it
            within(host.name, "ethtool -K underlay tso off gso off gro off")
        run(f"ip -n {nodes.west.name} link set underlay mtu {PATH_MTU}")
        yield nodes


def within(namespace: str, command: str) -> str:
    return run(f"ip netns exec {namespace} {command}")


def travel(pair: Pair, underlay: int) -> int:
    """All of east's rows and routes know the path. Answers what fits for an endpoint."""
    pair.travel_over(underlay)
    for host, other in ((pair.east, 2), (pair.west, 1)):
        rows = [
            node(address, other, path_mtu=PATH_MTU)
            for address in (f"192.0.2.{other}", f"2001:db8::{other}")
        ]
        pair.dataplanes[host.name].update_nodes({row.address: row for row in rows}, ())
        fits = PATH_MTU - (50 if underlay == 4 else 70)
        for prefix, source in (
            (f"10.{other}.0.0/24", f"10.{3 - other}.0.1"),
            (f"fd00:10:{other}::/112", f"fd00:10:{3 - other}::1"),
        ):
            run(f"ip -n {host.name} route replace {prefix} dev meshnet src {source} mtu {fits}")
    for host in (pair.east, pair.west):  # nothing that was learnt before
        run(f"ip -n {host.endpoint} route flush cache")
        run(f"ip -n {host.endpoint} -6 route flush cache")
    return fits


def too_big(pair: Pair) -> int:
    drops = pair.dataplanes[pair.east.name].drops()
    return sum(drop.packets for drop in drops if drop.reason == "PACKET_TOO_BIG")


def _receive(host: Host, address: str, ready: threading.Event, got: list[str]) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(host.endpoint), socket.create_server((address, 9000), family=family) as server:
        server.settimeout(30)
        ready.set()
        connection, _ = server.accept()
        digest = sha256()
        with connection:
            connection.settimeout(30)
            while data := connection.recv(1 << 18):
                digest.update(data)
        got.append(digest.hexdigest())


@pytest.mark.parametrize("gso", ["on", "off"])
@pytest.mark.parametrize(("underlay", "to"), [(4, V4), (4, V6), (6, V4)])
def test_a_transfer_finishes(pair: Pair, gso: str, underlay: int, to: str) -> None:
    travel(pair, underlay)
    within(pair.east.endpoint, f"ethtool -K eth0 tso {gso} gso {gso}")
    before, sent = too_big(pair), bytes(range(256)) * 4096 * MEGABYTES
    ready, got = threading.Event(), []
    receiver = threading.Thread(target=_receive, args=(pair.west, to, ready, got))
    receiver.start()
    assert ready.wait(10)

    with inside(pair.east.endpoint), socket.create_connection((to, 9000), timeout=30) as sender:
        sender.sendall(sent)
    receiver.join(timeout=60)

    assert got == [sha256(sent).hexdigest()], pair.drops(pair.east)
    assert too_big(pair) > before, "the sender had to be told"


@pytest.mark.parametrize(("underlay", "to"), [(4, V4), (4, V6), (6, V4)])
def test_a_datagram_that_may_not_be_cut_is_refused_with_the_mtu(
    pair: Pair, underlay: int, to: str
) -> None:
    fits = travel(pair, underlay)
    level, discover, mtu, headers = (
        (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU, 28)
        if to == V4
        else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU, 48)
    )
    family = socket.AF_INET if to == V4 else socket.AF_INET6
    with inside(pair.east.endpoint), socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(level, discover, PMTUDISC_DO)
        sender.connect((to, 9001))
        sender.settimeout(10)
        sender.send(bytes(1430 - headers))  # what the endpoint's route allows
        with pytest.raises(OSError) as refused:
            # the error of the first one, or the size of the second
            for _ in range(2):
                sender.send(bytes(1430 - headers))
        assert refused.value.errno == errno.EMSGSIZE
        assert sender.getsockopt(level, mtu) == fits


@pytest.mark.parametrize("underlay", [4, 6])
def test_a_datagram_that_may_be_cut_arrives_whole(pair: Pair, underlay: int) -> None:
    travel(pair, underlay)
    sent = bytes(range(250)) * 30
    with inside(pair.west.endpoint):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, inside(pair.east.endpoint):
        receiver.bind((V4, 9002))
        receiver.settimeout(10)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
            sender.sendto(sent, (V4, 9002))
            assert receiver.recvfrom(1 << 16) == (sent, ("10.1.0.10", sender.getsockname()[1]))
    assert pair.east.identity in pair.seen(pair.west)


def test_nobody_else_can_have_a_packet_cut_in_an_endpoints_name(pair: Pair) -> None:
    """On its way through the host's stack only our mark makes it the endpoint's."""
    travel(pair, 4)
    forged = "10.1.0.10/32"
    run(f"ip -n {pair.east.name} addr add {forged} dev meshnet")
    try:
        assert lost_pings(pair.east.name, V4, count=1) == 0, "from its own address"
        command = ["ip", "netns", "exec", pair.east.name]
        command += ["ping", "-c", "1", "-W", "1", "-I", "10.1.0.10", V4]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 1
        assert "INVALID_SOURCE egress" in pair.drops(pair.east)
    finally:
        run(f"ip -n {pair.east.name} addr del {forged} dev meshnet")


@pytest.mark.parametrize("to", [V4, V6, "10.1.0.1"])
def test_a_packet_that_runs_out_of_hops_is_answered_by_the_gateway(pair: Pair, to: str) -> None:
    travel(pair, 4)
    command = ["ip", "netns", "exec", pair.east.endpoint, "ping", "-n", "-c", "1", "-W", "2"]
    done = subprocess.run([*command, "-t", "1", to], check=False, capture_output=True, text=True)

    if to == "10.1.0.1":
        assert " 0% packet loss" in done.stdout, "the gateway itself is one hop away"
    else:
        gateway = "10.1.0.1" if to == V4 else "fd00:10:1::1"
        assert f"From {gateway}" in done.stdout, done.stdout
        assert "exceeded" in done.stdout
