"""Peers that are not meshnet: the kernel's own vxlan device, and a responder with Cilium's
habits that knows VXLAN from the RFC alone.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import attrs
import pytest

from meshnet.model.dataplane import Mode
from tests.support.bare_peer import Beside, bare_peer
from tests.support.bpf import run
from tests.support.packets import checksum
from tests.support.two_nodes import inside, lost_pings

pytestmark = [pytest.mark.bpf, pytest.mark.netlink]

OUR_INNER_MAC = "02:00:00:00:00:00"
"""What our packets are addressed to; a plain device must have it to take them."""

UDP_NO_CHECK6_RX = 102
"""linux/udp.h: take IPv6 datagrams whose checksum is zero, as tunnels send them (RFC 6935)."""


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    with bare_peer(tmp_path_factory.mktemp("bpf")) as made:
        yield made


@contextlib.contextmanager
def kernel_vxlan(beside: Beside, underlay: int) -> Iterator[None]:
    """The kernel's device in metadata mode, with addresses of the peer's PodCIDRs on it."""
    ip, identity = f"ip -n {beside.west.name}", beside.west.identity
    encap, outer = ("ip", "192.0.2.1") if underlay == 4 else ("ip6", "2001:db8::1")
    run(
        f"{ip} link add vx address {OUR_INNER_MAC} type vxlan external dstport 8472"
        " udp6zerocsumrx udp6zerocsumtx"
    )
    try:
        for words in (
            "link set vx arp off mtu 1400 up",
            "addr add 10.2.0.10/32 dev vx",
            "addr add fd00:10:2::10/128 dev vx nodad",
            f"route add 10.1.0.0/24 encap {encap} id {identity} dst {outer} dev vx src 10.2.0.10",
            f"-6 route add fd00:10:1::/112 encap {encap} id {identity} dst {outer} dev vx"
            " src fd00:10:2::10",
        ):
            run(f"{ip} {words}")
        yield
    finally:
        run(f"{ip} link del vx")


@pytest.mark.parametrize("underlay", [4, 6])
def test_the_kernels_own_vxlan_device_and_we_understand_each_other(
    beside: Beside, underlay: int
) -> None:
    beside.send_by(Mode.VXLAN, underlay=underlay)

    with kernel_vxlan(beside, underlay):
        for here, there in (("10.1.0.10", "10.2.0.10"), ("fd00:10:1::10", "fd00:10:2::10")):
            assert lost_pings(beside.east.endpoint, there) == 0, beside.drops()
            assert lost_pings(beside.west.name, here) == 0, beside.drops()
            assert lost_pings(beside.east.endpoint, there, size=1300) == 0, beside.drops()
    assert beside.west.identity in beside.seen()


@attrs.frozen
class Request:
    """One tunnelled echo request, as the responder read it."""

    flags: int
    vni: int
    source_port: int
    ttl: int
    ether_type: int


class Responder(threading.Thread):
    """Answers echo requests in VXLAN on UDP 8472, as probes/interop/fake_vxlan_peer.py: VNI is
    its own identity, MACs turned round, the source port its own."""

    def __init__(self, beside: Beside, underlay: int) -> None:
        super().__init__()
        family = socket.AF_INET if underlay == 4 else socket.AF_INET6
        with inside(beside.west.name):
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_RX, 1)
            self._socket.bind(("192.0.2.2" if underlay == 4 else "2001:db8::2", 8472))
        self._socket.settimeout(0.2)
        self._vni = beside.west.identity
        self._ended = threading.Event()
        self.requests: list[Request] = []

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                data, peer = self._socket.recvfrom(9000)
            except TimeoutError:
                continue
            answer = self._answer(data, peer[1])
            if answer is not None:
                self._socket.sendto(answer, (peer[0], 8472))
        self._socket.close()

    def end(self) -> None:
        self._ended.set()
        self.join(timeout=10)

    def _answer(self, data: bytes, port: int) -> bytes | None:
        flags, vni = struct.unpack_from("!II", data)
        frame, packet = data[8:22], bytearray(data[22:])
        (ether_type,) = struct.unpack_from("!H", frame, 12)
        if ether_type == 0x0800 and packet[9] == 1 and packet[20] == 8:
            ttl, packet[12:20] = packet[8], packet[16:20] + packet[12:16]
            packet[20] = 0
            packet[22:24] = b"\0\0"
            packet[22:24] = struct.pack("!H", checksum(bytes(packet[20:])))
        elif ether_type == 0x86DD and packet[6] == 58 and packet[40] == 128:
            ttl, packet[8:40] = packet[7], packet[24:40] + packet[8:24]
            packet[40] = 129
            packet[42:44] = b"\0\0"
            pseudo = bytes(packet[8:40]) + struct.pack("!II", len(packet) - 40, 58)
            packet[42:44] = struct.pack("!H", checksum(pseudo + bytes(packet[40:])))
        else:
            return None
        self.requests.append(Request(flags, vni >> 8, port, ttl, ether_type))
        head = struct.pack("!II", 0x08000000, self._vni << 8)
        return head + frame[6:12] + frame[:6] + frame[12:] + bytes(packet)


@pytest.mark.parametrize("underlay", [4, 6])
@pytest.mark.parametrize("to", ["10.2.0.10", "fd00:10:2::10"])
def test_a_bare_responder_with_ciliums_habits_is_a_peer(
    beside: Beside, underlay: int, to: str
) -> None:
    beside.send_by(Mode.VXLAN, underlay=underlay)
    responder = Responder(beside, underlay)
    responder.start()
    try:
        lost = lost_pings(beside.east.endpoint, to, count=5)
    finally:
        responder.end()

    assert lost == 0, beside.drops()
    assert beside.west.identity in beside.seen()
    assert len(responder.requests) == 5
    for request in responder.requests:
        assert (request.flags, request.vni) == (0x08000000, beside.east.identity)
        assert request.source_port >= 0xC000
        assert request.ttl == 64
