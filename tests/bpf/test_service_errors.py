"""ICMP about flows to a service: the endpoint is told of what it sent, backends of theirs."""

from __future__ import annotations

import struct

import pytest

from tests.support.asking import BACK, CLIENT, FRONT, REMOTE, TOO, VIP, WEB, Asking
from tests.support.bpf import GATEWAY_MAC, REDIRECT, SHOT, node
from tests.support.packets import (
    ACK,
    FIN,
    RST,
    SYN,
    TCP,
    Payload,
    frame,
    ip,
    read,
    segment,
    summed,
    tcp,
    udp,
)
from tests.support.pieces import HEADER, KINDS, error, quote
from tests.support.world import assert_summed

pytestmark = pytest.mark.bpf

PAYLOADS = {"tcp": tcp(CLIENT, FRONT, b"GET"), "udp": udp(CLIENT, FRONT, b"ask")}
GATEWAY = {4: "10.1.0.1", 6: "fd00:10:1::1"}
ELSEWHERE = {4: "10.2.0.1", 6: "fd00:10:2::1"}
"""The other node, by its gateway address."""
UNREACHABLE = {4: (3, 3), 6: (1, 4)}
BOTH = pytest.mark.parametrize("kind", ["tcp", "udp"])


def sent(asking: Asking, kind: str, to: str) -> bytes:
    """web's packet, from the IP header on."""
    return ip(WEB[asking.family], to, summed(WEB[asking.family], to, PAYLOADS[kind])).data


def without_tcp_sum(data: bytes, kind: str, family: int) -> bytes:
    """It is past the eight bytes that are promised, and nobody looks at it."""
    place = HEADER[family] + 16
    return data if kind == "udp" else data[:place] + bytes(2) + data[place + 2 :]


@BOTH
@pytest.mark.parametrize("length", [8, 28])
def test_the_backend_tells_the_endpoint_of_its_own_packet(
    asking: Asking, kind: str, length: int
) -> None:
    family = asking.family
    asking.serve(REMOTE[family])
    there = asking.asked(PAYLOADS[kind])
    left = ip(WEB[family], REMOTE[family], Payload(there.protocol, there.payload)).data

    for what in KINDS[family]:
        done = asking.arrive(error(family, what, REMOTE[family], WEB[family], left, length))

        assert done.verdict == REDIRECT, asking.node.drops()
        packet = read(done.packet)
        assert (str(packet.source), str(packet.destination)) == (VIP[family], WEB[family])
        assert packet.payload[:2] == bytes(what)
        assert_summed(packet)
        own = sent(asking, kind, VIP[family])[: HEADER[family] + length]
        assert without_tcp_sum(quote(packet), kind, family) == without_tcp_sum(own, kind, family)


def test_a_router_stays_itself(asking: Asking) -> None:
    family = asking.family
    asking.serve(REMOTE[family])
    asking.asked(PAYLOADS["udp"])
    left = ip(WEB[family], REMOTE[family], udp(CLIENT, BACK)).data
    reported = error(family, KINDS[family][2], ELSEWHERE[family], WEB[family], left)

    done = asking.arrive(reported, vni=6)

    assert done.verdict == REDIRECT, asking.node.drops()
    packet = read(done.packet)
    assert str(packet.source) == ELSEWHERE[family]
    assert quote(packet)[:8] == ip(WEB[family], VIP[family], udp(CLIENT, FRONT)).data[:8]
    assert struct.unpack_from("!HH", quote(packet), HEADER[family]) == (CLIENT, FRONT)
    assert_summed(packet)


def test_an_error_about_a_flow_with_another_port_names_the_clients_own(asking: Asking) -> None:
    family = asking.family
    asking.serve(REMOTE[family])
    asking.serve(REMOTE[family], at=TOO[family])
    asking.asked(PAYLOADS["udp"])
    port = asking.asked(PAYLOADS["udp"], to=TOO[family]).ports[0]
    left = ip(WEB[family], REMOTE[family], udp(port, BACK)).data

    done = asking.arrive(error(family, UNREACHABLE[family], REMOTE[family], WEB[family], left))

    assert done.verdict == REDIRECT, asking.node.drops()
    packet = read(done.packet)
    assert str(packet.source) == TOO[family]
    assert struct.unpack_from("!HH", quote(packet), HEADER[family]) == (CLIENT, FRONT)
    assert_summed(packet)


def test_the_endpoint_complains_to_the_backend(asking: Asking) -> None:
    family = asking.family
    asking.serve(REMOTE[family])
    asking.asked(PAYLOADS["udp"])
    got = asking.answer(udp(BACK, CLIENT, b"answer"))
    answer = summed(REMOTE[family], WEB[family], udp(BACK, CLIENT, b"answer"))
    wire = ip(REMOTE[family], WEB[family], answer, ttl=63).data

    done = asking.node.from_web(
        frame(error(family, UNREACHABLE[family], WEB[family], VIP[family], got.packet[14:]))
    )

    assert done.verdict == REDIRECT, asking.node.drops()
    packet = read(done.packet).inner
    assert (str(packet.source), str(packet.destination)) == (WEB[family], REMOTE[family])
    assert quote(packet) == wire[: HEADER[family] + 8], "it quotes what the backend sent"
    assert_summed(packet)


def test_an_endpoint_that_asks_itself_is_told_by_itself(asking: Asking) -> None:
    """Nobody listens there: what it quotes is what it got, and what it gets is what it sent."""
    family = asking.family
    asking.serve(WEB[family])
    got = asking.send(PAYLOADS["udp"])
    assert got.verdict == REDIRECT

    done = asking.node.from_web(
        frame(error(family, UNREACHABLE[family], WEB[family], VIP[family], got.packet[14:]))
    )

    assert done.verdict == REDIRECT, asking.node.drops()
    packet = read(done.packet)
    assert (packet.to, packet.of) == ("020000000110", GATEWAY_MAC)
    assert (str(packet.source), str(packet.destination)) == (VIP[family], WEB[family])
    ports = struct.unpack_from("!HH", quote(packet), HEADER[family])
    assert ports == (CLIENT, FRONT)
    addresses = {4: slice(12, 20), 6: slice(8, 40)}[family]
    assert quote(packet)[addresses] == sent(asking, "udp", VIP[family])[addresses]
    assert_summed(packet)


def test_without_a_backend_the_sender_of_a_datagram_is_told(asking: Asking) -> None:
    family = asking.family
    asking.serve()

    done = asking.send(PAYLOADS["udp"])

    assert done.verdict == REDIRECT
    packet = read(done.packet)
    assert (str(packet.source), str(packet.destination)) == (GATEWAY[family], WEB[family])
    assert packet.payload[:2] == bytes(UNREACHABLE[family])
    own = sent(asking, "udp", VIP[family])
    assert quote(packet) == own[: len(quote(packet))]
    assert len(quote(packet)) >= HEADER[family] + 8
    assert_summed(packet)
    assert asking.node.drops() == {"SERVICE_NO_BACKEND egress": 1}


@pytest.mark.parametrize(
    ("flags", "data", "expected"),
    [
        (SYN, b"", (0, 1001, RST | ACK)),
        (SYN, b"early", (0, 1006, RST | ACK)),
        (ACK, b"data", (2000, 0, RST)),
        (FIN | ACK, b"", (2000, 0, RST)),
        (FIN, b"xy", (0, 1003, RST | ACK)),
    ],
)
def test_without_a_backend_a_connection_is_reset(
    asking: Asking, flags: int, data: bytes, expected: tuple[int, int, int]
) -> None:
    """RFC 9293 section 3.5.2."""
    family = asking.family
    asking.serve()
    header = struct.pack("!HHIIBBHHH", CLIENT, FRONT, 1000, 2000, 5 << 4, flags, 1024, 0, 0)

    done = asking.send(Payload(TCP, header + data))

    assert done.verdict == REDIRECT
    packet = read(done.packet)
    assert (packet.to, packet.of) == ("020000000002", GATEWAY_MAC)
    assert (str(packet.source), str(packet.destination)) == (VIP[family], WEB[family])
    assert (packet.ports, packet.protocol, len(packet.payload)) == ((FRONT, CLIENT), TCP, 20)
    assert struct.unpack_from("!IIxB", packet.payload, 4) == expected
    assert_summed(packet)
    assert asking.node.drops() == {"SERVICE_NO_BACKEND egress": 1}
    assert asking.node.counters()["resets_sent"] == 1


def test_a_reset_is_not_answered(asking: Asking) -> None:
    asking.serve()

    assert asking.send(segment(CLIENT, FRONT, RST)).verdict == SHOT
    assert asking.node.drops() == {"SERVICE_NO_BACKEND egress": 1}


@BOTH
def test_a_packet_too_big_for_the_way_is_reported_as_it_was_sent(asking: Asking, kind: str) -> None:
    family = asking.family
    asking.serve(REMOTE[family])
    narrow = node("192.0.2.2", 2, path_mtu=1330)
    asking.node.dataplane.update_nodes({narrow.address: narrow}, ())
    payload = {"tcp": tcp(CLIENT, FRONT, bytes(1300)), "udp": udp(CLIENT, FRONT, bytes(1300))}[kind]
    dont_fragment = {"fragment": 0x4000} if family == 4 else {}

    done = asking.send(payload, **dont_fragment)

    assert done.verdict == REDIRECT
    packet = read(done.packet)
    assert str(packet.destination) == WEB[family]
    assert packet.payload[:2] == bytes({4: (3, 4), 6: (2, 0)}[family])
    own = summed(WEB[family], VIP[family], payload)
    whole = ip(WEB[family], VIP[family], own, **dont_fragment).data
    assert quote(packet) == whole[: len(quote(packet))]
    assert_summed(packet)
    assert asking.node.drops() == {"PACKET_TOO_BIG egress": 1}


def test_a_last_hop_to_a_backend_here_is_reported_as_it_was_sent(asking: Asking) -> None:
    family = asking.family
    asking.serve({4: "10.1.0.11", 6: "fd00:10:1::11"}[family])

    done = asking.send(PAYLOADS["udp"], ttl=1)

    packet = read(done.packet)
    assert packet.payload[0] == {4: 11, 6: 3}[family]
    addresses = {4: slice(12, 20), 6: slice(8, 40)}[family]
    assert quote(packet)[addresses] == sent(asking, "udp", VIP[family])[addresses]
    assert struct.unpack_from("!HH", quote(packet), HEADER[family]) == (CLIENT, FRONT)
