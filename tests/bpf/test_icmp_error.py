"""What an endpoint is told when its packet does not go on."""

from __future__ import annotations

import struct
import time
from ipaddress import ip_address

import pytest

from meshnet.dataplane.schema import possible_cpus
from meshnet.model.dataplane import Mode, Modes
from tests.support.bpf import API, GATEWAY_MAC, OK, REDIRECT, SHOT, Node, node
from tests.support.packets import (
    ICMP,
    ICMPV6,
    Payload,
    Read,
    checksum,
    extension,
    frame,
    icmpv6_checksum,
    ip,
    read,
    tcp,
    udp,
    vxlan_frame,
)

pytestmark = pytest.mark.bpf

V4, V6 = ("10.1.0.10", "10.2.0.10"), ("fd00:10:1::10", "fd00:10:2::10")
DF = 0x4000


def narrow(east: Node, mtu: int, **changes: object) -> None:
    row = node("192.0.2.2", 2, path_mtu=mtu, **changes)
    east.dataplane.update_nodes({row.address: row}, ())


def error_of(answer: bytes, source: str) -> tuple[int, int, int, bytes]:
    """(type, code, MTU, quote), after everything around them was found right."""
    got: Read = read(answer)
    assert (got.to, got.of) == ("020000000002", GATEWAY_MAC)
    gateway = "10.1.0.1" if "." in source else "fd00:10:1::1"
    assert (got.source, got.destination) == (ip_address(gateway), ip_address(source))
    if got.protocol == ICMP:
        assert checksum(got.payload) == 0
    else:
        assert got.protocol == ICMPV6 and icmpv6_checksum(got) == 0
    kind, code, _, mtu = struct.unpack_from("!BBHI", got.payload)
    return kind, code, mtu, got.payload[8:]


@pytest.mark.parametrize("gso_size", [0, 1352])
def test_fragmentation_needed_names_what_fits_the_path(east: Node, gso_size: int) -> None:
    narrow(east, 1400)
    sent = frame(ip(*V4, tcp(4000, 80, bytes(3000 if gso_size else 1312)), fragment=DF))

    done = east.from_web(sent, gso_size=gso_size)

    assert done.verdict == REDIRECT
    assert error_of(done.packet, V4[0]) == (3, 4, 1350, sent[14:][:64])
    assert east.drops() == {"PACKET_TOO_BIG egress": 1}
    assert east.counters() == {"icmp_errors_sent": 1}


@pytest.mark.parametrize("payload", [udp(1, 2, bytes(1303)), extension(tcp(1, 2, bytes(1283)))])
def test_packet_too_big_names_what_fits_the_path(east: Node, payload: Payload) -> None:
    narrow(east, 1400)
    sent = frame(ip(*V6, payload))
    assert len(sent) - 14 == 1351

    done = east.from_web(sent)

    assert done.verdict == REDIRECT
    assert error_of(done.packet, V6[0]) == (2, 0, 1350, sent[14:][:96])


def test_a_byte_less_fits(east: Node) -> None:
    narrow(east, 1400)

    assert east.from_web(frame(ip(*V6, udp(1, 2, bytes(1302))))).verdict == REDIRECT
    assert east.from_web(frame(ip(*V4, udp(1, 2, bytes(1322)), fragment=DF))).verdict == REDIRECT
    assert east.drops() == {}


def test_ipv6_is_never_told_less_than_every_link_carries(east: Node) -> None:
    narrow(east, 1300)

    done = east.from_web(frame(ip(*V6, udp(1, 2, bytes(1250)))))

    assert error_of(done.packet, V6[0])[:3] == (2, 0, 1280)


def test_without_a_tunnel_the_whole_path_is_the_endpoints(east: Node) -> None:
    narrow(east, 1400, modes=Modes(ipv4=Mode.NATIVE, ipv6=Mode.NATIVE))

    done = east.from_web(frame(ip(*V4, udp(1, 2, bytes(1373)), fragment=DF)))

    assert error_of(done.packet, V4[0])[:3] == (3, 4, 1400)


def test_what_may_be_cut_goes_to_the_stack_for_that(east: Node) -> None:
    narrow(east, 1400)
    for count, word in enumerate((0, 0x2000, 1408 // 8), start=1):
        sent = frame(ip(*V4, udp(1, 2, bytes(1400)), fragment=word))

        done = east.from_web(sent)

        assert (done.verdict, done.packet) == (OK, sent)
        assert east.counters() == {"to_be_cut": count}
    assert east.drops() == {}


@pytest.mark.parametrize(
    ("addresses", "expected"), [(V4, (11, 0, 0)), (V6, (3, 0, 0))], ids=["IPv4", "IPv6"]
)
@pytest.mark.parametrize("there", ["elsewhere", "here"])
@pytest.mark.parametrize("size", [0, 500])
def test_time_exceeded_quotes_even_a_short_packet(
    east: Node, addresses: tuple[str, str], expected: tuple[int, int, int], there: str, size: int
) -> None:
    source, destination = addresses
    if there == "here":
        destination = destination.replace("10.2.0.10", "10.1.0.11").replace("2::10", "1::11")
    sent = frame(ip(source, destination, udp(33434, 33435, bytes(size)), ttl=1))

    done = east.from_web(sent)

    assert done.verdict == REDIRECT
    kind, code, mtu, quote = error_of(done.packet, source)
    assert (kind, code, mtu) == expected
    whole = 64 if "." in source else 96
    assert quote == sent[14:][: whole if size else whole // 2 - (4 if "." in source else 0)]
    direction = "ingress" if there == "here" else "egress"
    assert east.drops() == {f"TTL_EXCEEDED {direction}": 1}


@pytest.mark.parametrize(
    "sent",
    [
        ip(*V4, Payload(ICMP, b"\x03\x01" + bytes(1400)), fragment=DF),
        ip(*V4, Payload(ICMP, b"\x0b\x00" + bytes(1400)), fragment=DF),
        ip(*V6, Payload(ICMPV6, b"\x01\x00" + bytes(1400))),
        ip(*V4, Payload(17, bytes(1400)), fragment=DF | 0x10),
        ip(*V4, udp(1, 2), ttl=1, fragment=0x10),
    ],
    ids=["unreachable", "exceeded", "unreachable 6", "later fragment", "expired fragment"],
)
def test_no_error_answers_an_error_or_a_later_fragment(east: Node, sent: object) -> None:
    narrow(east, 1400)

    assert east.from_web(frame(sent)).verdict == SHOT  # type: ignore[arg-type]
    assert sum(east.drops().values()) == 1
    assert "icmp_errors_sent" not in east.counters()


def test_what_expires_on_its_way_in_is_dropped_without_a_word(east: Node) -> None:
    """The sender is another node's, and no address here could be believed by it."""
    inner = frame(ip(V4[1], V4[0], udp(1, 2), ttl=1))

    done = east.from_underlay(vxlan_frame("192.0.2.2", "192.0.2.1", vni=API, inner=inner))

    assert done.verdict == SHOT
    assert east.drops() == {"TTL_EXCEEDED ingress": 1}


def test_a_flood_is_answered_a_thousand_times_a_second_at_most(east: Node) -> None:
    narrow(east, 1400)
    sent = frame(ip(*V4, udp(1, 2, bytes(1400)), fragment=DF))
    bucket, empty = east.map("icmp_budget"), struct.pack("=QQ", time.monotonic_ns(), 0)
    bucket.update(bytes(4), empty * possible_cpus())
    began = time.monotonic()

    verdicts = [east.from_web(sent).verdict for _ in range(300)]

    earned = int((time.monotonic() - began) * 1000) + 1
    assert verdicts.count(REDIRECT) <= earned * possible_cpus()
    assert set(verdicts) <= {REDIRECT, SHOT}
    assert east.drops() == {"PACKET_TOO_BIG egress": 300}
