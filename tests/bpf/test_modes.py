"""How packets travel between nodes: VXLAN, Geneve or as they are; a receiver takes them all."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from meshnet.model.dataplane import Mode, Modes
from tests.support.bpf import API, GATEWAY_MAC, NOT_OURS, OK, REDIRECT, WEB, Node, config, node
from tests.support.packets import frame, geneve_frame, ip, read, tcp, udp

pytestmark = pytest.mark.bpf

HERE = {4: "192.0.2.1", 6: "2001:db8::1"}
THERE = {4: "192.0.2.2", 6: "2001:db8::2"}
WEB_ADDRESS = {4: "10.1.0.10", 6: "fd00:10:1::10"}
API_ADDRESS = {4: "10.2.0.10", 6: "fd00:10:2::10"}
API_BY_IPV6 = {4: "10.2.0.11", 6: "fd00:10:2::11"}
EVERY_INNER_AND_OUTER = [(inner, outer) for inner in (4, 6) for outer in (4, 6)]


def send_by(east: Node, mode: Mode, **changes: object) -> None:
    """From now on to west-1 by this mode, over either underlay."""
    rows = [node(a, 2, modes=Modes(ipv4=mode, ipv6=mode), **changes) for a in THERE.values()]
    east.dataplane.update_nodes({row.address: row for row in rows}, ())


def accept_native(east: Node) -> None:
    east.dataplane.configure(config(accept_native=True))


@pytest.mark.parametrize(("inner", "outer"), EVERY_INNER_AND_OUTER)
def test_geneve_carries_the_identity_as_vni_and_no_option(
    east: Node, inner: int, outer: int
) -> None:
    send_by(east, Mode.GENEVE)
    to = (API_ADDRESS if outer == 4 else API_BY_IPV6)[inner]
    sent = frame(ip(WEB_ADDRESS[inner], to, tcp(4000, 80, b"GET /")))

    done = east.from_web(sent)

    assert done.verdict == REDIRECT, east.drops()
    packet = read(done.packet)
    assert (packet.source, packet.destination) == (
        ip_address(HERE[outer]),
        ip_address(THERE[outer]),
    )
    assert packet.ports[1] == 6081
    head, vni = struct.unpack_from("!II", packet.payload, 8)
    assert (head, vni >> 8) == (0x6558, WEB)
    assert packet.inner.of == GATEWAY_MAC
    assert done.packet[-len(sent) + 14 :] == sent[14:], "the inner packet is untouched"
    assert east.counters() == {"encapsulated": 1}


@pytest.mark.parametrize("options", [b"", bytes([1, 4, 7, 1]) + b"\1\2\3\4", bytes(252)])
@pytest.mark.parametrize(("inner", "outer"), EVERY_INNER_AND_OUTER)
def test_geneve_is_unpacked_with_whatever_options_may_be_skipped(
    east: Node, inner: int, outer: int, options: bytes
) -> None:
    payload = tcp(4000, 80, b"GET / HTTP/1.1")
    plain = frame(ip(API_ADDRESS[inner], WEB_ADDRESS[inner], payload))

    done = east.from_underlay(
        geneve_frame(THERE[outer], HERE[outer], vni=API, inner=plain, options=options)
    )

    assert done.verdict == REDIRECT, east.drops()
    packet = read(done.packet)
    assert (packet.to, packet.of) == ("020000000110", GATEWAY_MAC)
    assert (packet.ttl, packet.payload) == (63, payload.data)
    assert east.seen() == {(10, API): 1}
    assert east.counters() == {"decapsulated": 1, "delivered": 1}


@pytest.mark.parametrize("mode", [Mode.VXLAN, Mode.GENEVE])
def test_each_family_travels_by_its_own_mode(east: Node, mode: Mode) -> None:
    row = node(THERE[4], 2, modes=Modes(ipv4=Mode.NATIVE, ipv6=mode))
    east.dataplane.update_nodes({row.address: row}, ())

    east.from_web(frame(ip(WEB_ADDRESS[4], API_ADDRESS[4], udp(1, 2))))
    sent = east.from_web(frame(ip(WEB_ADDRESS[6], API_ADDRESS[6], udp(1, 2))))

    assert east.counters() == {"sent_native": 1, "encapsulated": 1}
    assert read(sent.packet).ports[1] == (8472 if mode is Mode.VXLAN else 6081)


@pytest.mark.parametrize("hops", [(), (THERE[4], THERE[6])], ids=["asked", "given"])
@pytest.mark.parametrize("inner", [4, 6])
def test_a_native_packet_leaves_as_it_is_one_hop_older(
    east: Node, inner: int, hops: tuple[str, ...]
) -> None:
    send_by(east, Mode.NATIVE, next_hops=tuple(map(ip_address, hops)))
    payload = tcp(4000, 80, b"GET /")
    sent = frame(ip(WEB_ADDRESS[inner], API_ADDRESS[inner], payload))

    done = east.from_web(sent)

    assert done.verdict == REDIRECT, east.drops()
    packet = read(done.packet)
    assert (packet.source, packet.destination) == (
        ip_address(WEB_ADDRESS[inner]),
        ip_address(API_ADDRESS[inner]),
    )
    assert (packet.ttl, packet.payload) == (63, payload.data)
    assert east.counters() == {"sent_native": 1}


@pytest.mark.parametrize("size", [1472, 1473])
def test_a_native_packet_has_the_whole_path_for_itself(east: Node, size: int) -> None:
    send_by(east, Mode.NATIVE)

    done = east.from_web(frame(ip(WEB_ADDRESS[4], API_ADDRESS[4], udp(1, 2, bytes(size)))))

    assert (done.verdict == REDIRECT) is (size == 1472), east.drops()


@pytest.mark.parametrize("inner", [4, 6])
def test_a_native_arrival_has_the_identity_that_ipcache_gives_its_source(
    east: Node, inner: int
) -> None:
    accept_native(east)
    payload = tcp(4000, 80, b"GET / HTTP/1.1")

    done = east.from_underlay(frame(ip(API_ADDRESS[inner], WEB_ADDRESS[inner], payload)))

    assert done.verdict == REDIRECT, east.drops()
    packet = read(done.packet)
    assert (packet.to, packet.of) == ("020000000110", GATEWAY_MAC)
    assert (packet.ttl, packet.payload) == (63, payload.data)
    assert east.seen() == {(10, API): 1}
    assert east.counters() == {"received_native": 1, "delivered": 1}


def test_another_node_itself_may_arrive_natively(east: Node) -> None:
    accept_native(east)

    done = east.from_underlay(frame(ip("10.2.0.1", WEB_ADDRESS[4], udp(1, 2))))

    assert done.verdict == REDIRECT, east.drops()
    assert east.seen() == {(10, 6): 1}


def test_a_native_arrival_for_the_node_itself_goes_to_its_stack(east: Node) -> None:
    accept_native(east)
    sent = frame(ip(API_ADDRESS[4], "10.1.0.1", udp(1, 2)))

    done = east.from_underlay(sent)

    assert (done.verdict, done.packet) == (OK, sent)


@pytest.mark.parametrize(
    "sent",
    [
        frame(ip("8.8.8.8", "10.1.0.10", udp(1, 2))),
        frame(ip("198.51.100.7", "198.51.100.8", udp(1, 2))),
        frame(ip("10.2.0.10", "198.51.100.8", udp(1, 2))),
        frame(ip("10.2.0.10", "192.0.2.1", udp(1, 2))),
        frame(ip("fe80::2", "ff02::1", udp(1, 2))),
        frame(ip("2001:db8::2", "fd00:10:1::10", udp(1, 2))),
    ],
    ids=["world to us", "passing", "mesh passing", "to the node", "ND", "node to us"],
)
@pytest.mark.parametrize("native", [True, False])
def test_what_is_not_the_meshs_passes_untouched(east: Node, sent: bytes, native: bool) -> None:
    east.dataplane.configure(config(accept_native=native))

    done = east.from_underlay(sent)

    assert (done.verdict, done.packet) == (NOT_OURS, sent)
    assert east.drops() == {}
