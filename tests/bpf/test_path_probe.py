"""The real prober against the real dataplane and stack of a peer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from meshnet.agent.path_probe import PathPeer, PathProber
from meshnet.model.dataplane import Mode
from tests.support.bpf import run
from tests.support.packets import checksum
from tests.support.two_nodes import Pair, inside, two_nodes

pytestmark = [pytest.mark.bpf, pytest.mark.netlink]

VLAN_TAG = 4


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_nodes(tmp_path_factory.mktemp("bpf")) as nodes:
        # west knows that its way back is narrow: it cuts answers, so that they do arrive
        for prefix, source in (("10.1.0.0/24", "10.2.0.1"), ("fd00:10:1::/112", "fd00:10:2::1")):
            way = f"{prefix} dev meshnet src {source} mtu 1280"
            run(f"ip -n {nodes.west.name} route replace {way}")
        yield nodes


def west(underlay: int, mode: Mode, inner: int = 4) -> PathPeer:
    prefix = "192.0.2." if underlay == 4 else "2001:db8::"
    ends = ("10.1.0.1", "10.2.0.1") if inner == 4 else ("fd00:10:1::1", "fd00:10:2::1")
    return PathPeer(
        address=ip_address(f"{prefix}2"),
        own_address=ip_address(f"{prefix}1"),
        inner=(ip_address(ends[0]), ip_address(ends[1])),
        mode=mode,
    )


def narrow(pair: Pair, mtu: int) -> None:
    """West's interface drops what is longer, and says nothing; it leaves room for a VLAN tag
    (is_skb_forwardable, net/core/dev.c)."""
    run(f"ip -n {pair.west.name} link set underlay mtu {mtu - VLAN_TAG}")


def probing(pair: Pair, peer: PathPeer, then: Callable[[PathProber], None] | None = None) -> int:
    """What a prober on east finds; `then` happens after its first answer."""

    async def measure() -> int:
        changed = asyncio.Event()
        prober = PathProber(lambda: [peer], ceiling=1500, changed=changed.set)
        task = asyncio.create_task(prober.run())
        try:
            async with asyncio.timeout(20):
                await changed.wait()
                if then is not None:
                    changed.clear()
                    then(prober)
                    await changed.wait()
        finally:
            task.cancel()
            await asyncio.wait([task])
        return prober.path_mtus[peer.address]

    with inside(pair.east.name):
        return asyncio.run(measure())


@pytest.mark.parametrize("underlay", [4, 6])
@pytest.mark.parametrize(
    ("mode", "inner"), [(Mode.VXLAN, 4), (Mode.VXLAN, 6), (Mode.GENEVE, 4), (Mode.NATIVE, 4)]
)
def test_a_path_is_found_to_the_byte_in_every_format(
    pair: Pair, underlay: int, mode: Mode, inner: int
) -> None:
    pair.travel_over(underlay)
    narrow(pair, 1387)
    try:
        assert probing(pair, west(underlay, mode, inner)) == 1387
        assert pair.drops(pair.west) == [], "no probe is a packet that has to be refused"
    finally:
        narrow(pair, 1504)


def test_a_routers_too_big_has_the_path_measured_at_once(pair: Pair) -> None:
    """Not before ten seconds, without it. The message is as a router's kernel would send it."""
    pair.travel_over(4)
    peer = west(4, Mode.VXLAN)

    def say(prober: PathProber) -> None:
        assert prober.path_mtus[peer.address] == 1500
        narrow(pair, 1444)
        quote = struct.pack("!BBHHHBBH", 0x45, 0, 1500, 0, 0x4000, 64, 17, 0)
        quote += peer.own_address.packed + peer.address.packed + bytes(8)
        head = struct.pack("!BBHHH", 3, 4, 0, 0, 1444)
        total = checksum(head + quote)
        message = head[:2] + struct.pack("!H", total) + head[4:] + quote
        with (
            inside(pair.west.name),
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as router,
        ):
            router.sendto(message, (str(peer.own_address), 0))

    try:
        assert probing(pair, peer, say) == 1444
    finally:
        narrow(pair, 1504)
