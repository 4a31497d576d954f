"""Packets whose bytes were summed up before they reach our programs (CHECKSUM_COMPLETE).

Network cards do that, and no card is needed for it: the kernel's own tunnels sum up what no card
has vouched for. So the nodes' wire here is a vxlan device over a cable, and what comes along the
cable is written by hand, with an outer checksum to verify.

east ── underlay: vxlan 42 over `cable`, 10.99.0.1 ══ 10.99.0.2 ── west
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.support.bpf import run
from tests.support.packets import Packet, frame, ip, summed, udp, vxlan
from tests.support.two_nodes import Host, Pair, inside, two_nodes

pytestmark = [pytest.mark.bpf, pytest.mark.netlink]

CARRIER_PORT, CARRIER_VNI = 4789, 42
PORT = 5353
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_CSUM_VALID = 263, 8, 1 << 7
"""linux/if_packet.h. Valid: the sum is there (COMPLETE), or somebody has vouched for it."""
INNER = {4: ("10.1.0.10", "10.2.0.10"), 6: ("fd00:10:1::10", "fd00:10:2::10")}


def _wire(east: Host, west: Host) -> None:
    run(f"ip -n {east.name} link add cable type veth peer name cable netns {west.name}")
    for host, other in ((east, west), (west, east)):
        ip_of = f"ip -n {host.name}"
        run(f"{ip_of} link set cable address 02:00:00:00:99:0{host.number} up")
        run(f"{ip_of} addr add 10.99.0.{host.number}/24 dev cable")
        run(
            f"{ip_of} link add underlay address 02:00:00:00:42:0{host.number} type vxlan"
            f" id {CARRIER_VNI} local 10.99.0.{host.number} remote 10.99.0.{other.number}"
            f" dstport {CARRIER_PORT} udpcsum"
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_nodes(tmp_path_factory.mktemp("bpf"), _wire) as nodes:
        nodes.travel_over(4)
        yield nodes


def carried(pair: Pair, inner: Packet) -> bytes:
    """An endpoint's packet in our tunnel, and that in the tunnel which is the wire."""
    ours = udp(50001, 8472, vxlan(pair.east.identity, frame(inner)))
    on_wire = frame(ip("192.0.2.1", "192.0.2.2", ours), to="020000004202", of="020000004201")
    carrier = udp(50000, CARRIER_PORT, vxlan(CARRIER_VNI, on_wire))
    ends = ("10.99.0.1", "10.99.0.2")
    return frame(ip(*ends, summed(*ends, carrier)), to="020000009902", of="020000009901")


@contextlib.contextmanager
def watching(interface: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:
        tap.bind((interface, 3))
        tap.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        tap.settimeout(5)
        yield tap


def summed_up(tap: socket.socket) -> bool:
    """Whether the next packet came with its sum."""
    _, ancillary, _, _ = tap.recvmsg(1 << 16, 256)
    ((_, _, data),) = ancillary
    return bool(struct.unpack_from("=I", data)[0] & TP_STATUS_CSUM_VALID)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [20, 1200], ids=["short", "long"])
def test_a_packet_that_was_summed_up_is_unpacked_and_its_checksum_is_still_right(
    pair: Pair, family: int, size: int
) -> None:
    ends, words = INNER[family], bytes(range(256)) * 5
    good = ip(*ends, summed(*ends, udp(4000, PORT, words[:size])))
    spoilt = Packet(good.ether_type, good.data[:-1] + b"\xff")
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with contextlib.ExitStack() as stack:
        with inside(pair.west.endpoint):
            ear = stack.enter_context(socket.socket(kind, socket.SOCK_DGRAM))
            ear.bind((ends[1], PORT))
            ear.settimeout(5)
        with inside(pair.west.name):
            tap = stack.enter_context(watching("underlay"))
        with inside(pair.east.name):
            cable = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
            cable.bind(("cable", 0))
        for packet in (spoilt, good):
            cable.send(carried(pair, packet))
            assert summed_up(tap)
        assert ear.recv(1 << 16) == words[:size], "the first one was spoilt, and is not taken"
    assert pair.drops(pair.west) == []
