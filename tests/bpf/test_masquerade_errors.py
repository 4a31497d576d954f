"""ICMP errors about masqueraded flows, and fragments of them, both ways."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.support.bpf import NOT_OURS, OK, REDIRECT, SHOT, Outcome
from tests.support.packets import (
    Packet,
    Payload,
    Read,
    frame,
    ip,
    read,
    summed,
    tcp,
    udp,
)
from tests.support.pieces import HEADER, KINDS, error, fragments, quote, whole
from tests.support.world import (
    NODE,
    ROUTER,
    SERVER,
    WEB,
    Visit,
    assert_summed,
    echo,
)

pytestmark = pytest.mark.bpf

PAYLOADS = {"tcp": tcp(5000, 80, b"GET"), "udp": udp(5000, 80)}


def sent(visit: Visit, kind: str) -> tuple[bytes, Packet]:
    """A packet as the endpoint sent it and, as it left, without the Ethernet header."""
    family = visit.family
    payload = echo(family, 5000) if kind == "ping" else PAYLOADS[kind]
    own = ip(WEB[family], SERVER[family], summed(WEB[family], SERVER[family], payload), ttl=63)
    left = visit.out(payload)
    assert left.verdict == REDIRECT
    return own.data, Packet(own.ether_type, left.packet[14:])


@pytest.mark.parametrize("flow", ["tcp", "udp", "ping"])
@pytest.mark.parametrize("length", [8, 28])
def test_a_router_tells_the_endpoint_of_its_own_packet(
    visit: Visit, flow: str, length: int
) -> None:
    family = visit.family
    own, left = sent(visit, flow)

    for kind in KINDS[family]:
        reported = error(family, kind, ROUTER[family], NODE[family], left.data, length)
        done = visit.arrive(reported)

        assert done.verdict == REDIRECT, visit.node.drops()
        packet = read(done.packet)
        assert str(packet.source) == ROUTER[family], "traceroute shows the routers' addresses"
        assert str(packet.destination) == WEB[family]
        assert packet.payload[:2] == bytes(kind)
        assert_summed(packet)
        expected = own[: HEADER[family] + length]
        if flow == "tcp":  # its checksum is past what is promised, and nobody looks at it
            place = HEADER[family] + 16
            expected = expected[:place] + quote(packet)[place : place + 2] + expected[place + 2 :]
        assert quote(packet) == expected, "it quotes what the endpoint sent, bit for bit"


def test_an_error_about_nothing_of_ours_is_the_nodes_own(visit: Visit) -> None:
    family = visit.family
    _, left = sent(visit, "udp")
    foreign = ip(NODE[family], SERVER[family], udp(50999, 80)).data
    elsewhere = ip(SERVER[family], ROUTER[family], udp(5000, 80)).data
    short = left.data[: HEADER[family] + 3]

    for quoted in (foreign, elsewhere, short, b""):
        done = visit.arrive(error(family, KINDS[family][0], ROUTER[family], NODE[family], quoted))
        assert done.verdict == NOT_OURS
    assert visit.node.drops() == {}


def complain(visit: Visit, quoted: bytes) -> Outcome:
    """web says that what it got is not welcome."""
    family = visit.family
    return visit.node.from_web(
        frame(error(family, KINDS[family][0], WEB[family], SERVER[family], quoted))
    )


@pytest.mark.parametrize("flow", ["tcp", "udp"])
def test_the_endpoint_complains_by_the_nodes_address(visit: Visit, flow: str) -> None:
    family = visit.family
    _, left = sent(visit, flow)
    (port,) = struct.unpack_from("!H", left.data, HEADER[family])
    answer = tcp(80, port) if flow == "tcp" else udp(80, port)
    wire = ip(SERVER[family], NODE[family], summed(SERVER[family], NODE[family], answer), ttl=63)
    got = visit.arrive(Packet(wire.ether_type, wire.data))
    assert got.verdict == REDIRECT

    done = complain(visit, got.packet[14:])

    assert done.verdict == REDIRECT, visit.node.drops()
    packet = read(done.packet)
    assert str(packet.source) == NODE[family]
    assert str(packet.destination) == SERVER[family]
    assert_summed(packet)
    ports = quote(packet)[HEADER[family] : HEADER[family] + 4]
    assert ports == struct.pack("!HH", 80, port)
    addresses = {4: slice(12, 20), 6: slice(8, 40)}[family]
    assert quote(packet)[addresses] == wire.data[addresses], "it quotes what the server sent"


def test_a_complaint_about_nothing_is_refused(visit: Visit) -> None:
    family = visit.family

    done = complain(visit, ip(SERVER[family], WEB[family], udp(80, 5000)).data)

    assert done.verdict == SHOT
    assert visit.node.drops() == {"NAT_NO_FLOW egress": 1}


def test_a_complaint_about_a_call_from_the_world_is_the_stacks(visit: Visit) -> None:
    family = visit.family
    call = ip(SERVER[family], WEB[family], udp(50123, 80))
    visit.node.send("to_endpoint", frame(call), visit.node.web)

    assert complain(visit, call.data).verdict == OK


def test_fragments_follow_their_first_both_ways(visit: Visit) -> None:
    family = visit.family
    web, node, server = WEB[family], NODE[family], SERVER[family]
    data = bytes(range(200))

    def pieces(source: str, to: str, payload: Payload, send: Any) -> list[Read]:
        packets = fragments(family, source, to, summed(source, to, payload))
        done = [send(frame(packet)) for packet in packets]
        assert [one.verdict for one in done] == [REDIRECT, REDIRECT], visit.node.drops()
        return [read(one.packet) for one in done]

    out = pieces(web, server, udp(50123, 53, data), visit.node.from_web)
    assert {str(packet.source) for packet in out} == {node}
    assert whole(out, family) == summed(node, server, udp(50123, 53, data)).data

    back = pieces(server, node, udp(53, 50123, data), visit.node.from_underlay)
    assert {str(packet.destination) for packet in back} == {web}
    assert whole(back, family) == summed(server, web, udp(53, 50123, data)).data


def test_fragments_for_the_node_itself_are_untouched(visit: Visit) -> None:
    family = visit.family
    for packet in fragments(family, SERVER[family], NODE[family], udp(53, 50123, bytes(200))):
        sent_frame = frame(packet)
        done = visit.node.from_underlay(sent_frame)
        assert (done.verdict, done.packet) == (NOT_OURS, sent_frame)
