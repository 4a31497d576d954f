"""Outer packets in fragments, which another stack may make: docs/design/0004-next-hop.md.

VXLAN is put together by the kernel's device and checked as any packet. There is no Geneve device
here, and the idle one on its port drops what is no VXLAN: nothing of it arrives, and nothing else.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.support.bpf import run
from tests.support.packets import GENEVE_PORT, VXLAN_PORT, frame, geneve, ip, udp, vxlan
from tests.support.two_nodes import Pair, inside, two_nodes

pytestmark = [pytest.mark.bpf, pytest.mark.netlink]

PORT = 5353
LONG = b"x" * 3000
IP_MTU_DISCOVER, PMTUDISC_DONT = 10, 0
"""linux/in.h: the stack may cut what is too big."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_nodes(tmp_path_factory.mktemp("bpf")) as nodes:
        nodes.travel_over(4)
        idle = f"ip -n {nodes.west.name} link add idle type vxlan external dstport {GENEVE_PORT}"
        run(f"{idle} nolearning udp6zerocsumrx udp6zerocsumtx")
        run(f"ip -n {nodes.west.name} link set idle up")
        yield nodes


def test_vxlan_in_outer_fragments_arrives_and_geneve_does_no_harm(pair: Pair) -> None:
    vni = pair.east.identity
    with contextlib.ExitStack() as stack:
        with inside(pair.west.endpoint):
            ear = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            ear.bind(("10.2.0.10", PORT))
            ear.settimeout(10)
        with inside(pair.east.name):
            mouth = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            mouth.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
        for word, port, wrap in (
            (b"geneve" + LONG, GENEVE_PORT, geneve),
            (b"vxlan" + LONG, VXLAN_PORT, vxlan),
            (b"geneve", GENEVE_PORT, geneve),
        ):
            inner = frame(ip("10.1.0.10", "10.2.0.10", udp(4000, PORT, word)))
            mouth.sendto(wrap(vni, inner), ("192.0.2.2", port))
        heard = [ear.recv(1 << 16), ear.recv(1 << 16)]
    assert heard == [b"vxlan" + LONG, b"geneve"], "the one in fragments would have been first"
    assert pair.drops(pair.west) == []
    assert pair.counters(pair.west)["reassembled"] == 1
