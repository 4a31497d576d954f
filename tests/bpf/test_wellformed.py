"""What of odd packets passes, and that what does not is refused by its own reason."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from tests.support.bpf import API, REDIRECT, SHOT, Node
from tests.support.packets import (
    FRAGMENT,
    HOPOPTS,
    ICMP,
    LOOSE_ROUTE,
    RECORD_ROUTE,
    ROUTER_ALERT,
    TCP,
    UDP,
    Payload,
    extension,
    frame,
    ip,
    read,
    tcp,
    udp,
    vxlan_frame,
)

pytestmark = pytest.mark.bpf

V4, V6 = ("10.1.0.10", "10.2.0.10"), ("fd00:10:1::10", "fd00:10:2::10")


def fragment6(payload: Payload, word: int) -> Payload:
    """Behind an IPv6 fragment header with this offset-and-flags word."""
    return Payload(FRAGMENT, struct.pack("!BBHI", payload.protocol, 0, word, 7) + payload.data)


@pytest.mark.parametrize(
    "sent",
    [
        ip(*V4, udp(1, 2), options=bytes([1, 1, 1, 0])),
        ip(*V4, udp(1, 2), options=bytes([0, 131, 3, 4])),
        ip(*V4, udp(1, 2), options=ROUTER_ALERT + bytes([1, 1, 0, 0])),
        ip(*V4, udp(1, 2), options=bytes([1] * 36) + ROUTER_ALERT),
        ip(*V4, Payload(UDP, udp(1, 2, bytes(56)).data), fragment=0x2000),
        ip(*V4, Payload(ICMP, b"\x08" + bytes(7))),
        ip(*V4, tcp(1, 2, bytes(40), words=15)),
        ip(*V4, Payload(132, struct.pack("!HHII", 1, 2, 3, 4))),
        ip(*V6, extension(extension(udp(1, 2)), kind=HOPOPTS)),
        ip(*V6, fragment6(udp(1, 2), 0)),
        ip(*V6, Payload(59, b"")),
    ],
    ids=[
        *("padding", "hidden behind the end", "router alert", "40 bytes of options"),
        *("first of several", "echo", "TCP options", "SCTP"),
        *("hop by hop", "atomic fragment", "no next header"),
    ],
)  # fmt: skip
def test_what_is_unusual_and_right_passes(east: Node, sent: object) -> None:
    done = east.from_web(frame(sent))  # type: ignore[arg-type]

    assert done.verdict == REDIRECT, east.drops()


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (
            ip(*V4, tcp(1, 2, bytes(4)), fragment=0x2000),
            ip(*V4, Payload(TCP, bytes(16)), fragment=0x0002),
        ),
        (
            ip(*V6, fragment6(udp(1, 2, bytes(8)), 0x0001)),
            ip(*V6, fragment6(Payload(UDP, bytes(16)), 0x0010)),
        ),
    ],
    ids=["TCP at 16", "UDP at 16"],
)
def test_a_later_fragment_passes_behind_its_first(east: Node, first: object, later: object) -> None:
    assert east.from_web(frame(later)).verdict == SHOT  # type: ignore[arg-type]
    for sent in (first, later):
        assert east.from_web(frame(sent)).verdict == REDIRECT  # type: ignore[arg-type]


def longer(payload: Payload, by: int) -> Payload:
    return Payload(payload.protocol, payload.data + bytes(by))


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        ("SOURCE_ROUTE", ip(*V4, udp(1, 2), options=ROUTER_ALERT + LOOSE_ROUTE)),
        ("SOURCE_ROUTE", ip(*V4, udp(1, 2), options=bytes([1] * 37) + bytes([137, 3, 4]))),
        ("IPV4_OPTION", ip(*V4, udp(1, 2), options=bytes([1] * 36) + bytes([7, 4, 4, 0]))),
        ("IPV4_OPTION", ip(*V4, udp(1, 2), options=RECORD_ROUTE)),
        ("BAD_FRAGMENT", ip(*V4, Payload(UDP, udp(1, 2, bytes(5)).data), fragment=0x2000)),
        ("BAD_FRAGMENT", ip(*V6, fragment6(Payload(TCP, bytes(24)), 0x0008))),
        ("BAD_FRAGMENT", ip(*V6, fragment6(Payload(UDP, bytes(9)), 0x0011))),
        ("BAD_FRAGMENT", ip(*V6, fragment6(Payload(UDP, bytes(64)), 0xFFF8))),
        ("MALFORMED", ip(*V6, extension(extension(udp(1, 2), kind=HOPOPTS)))),
        ("MALFORMED", ip(*V6, fragment6(fragment6(udp(1, 2), 0), 0))),
        ("TRUNCATED", ip(*V6, Payload(60, bytes([UDP, 40]) + bytes(30)))),
        ("L4_TRUNCATED", ip(*V4, Payload(TCP, bytes(16)), fragment=0x2000)),
        ("L4_TRUNCATED", ip(*V4, Payload(ICMP, bytes(7)))),
        ("L4_TRUNCATED", ip(*V6, Payload(58, bytes(7)))),
        ("L4_MALFORMED", ip(*V4, udp(1, 2, b"12345", length=14))),
        ("L4_MALFORMED", ip(*V6, tcp(1, 2, words=6))),
    ],
)
def test_what_hides_or_contradicts_itself_is_refused(east: Node, reason: str, sent: object) -> None:
    done = east.from_web(frame(sent))  # type: ignore[arg-type]

    assert done.verdict == SHOT
    assert east.drops() == {f"{reason} egress": 1}


def test_padding_behind_a_short_packet_is_not_its_header(east: Node) -> None:
    """Ethernet's 60 bytes: what the IP header's length leaves out is not read."""
    short = frame(ip(*V4, Payload(UDP, udp(1, 2).data[:4]))) + bytes(40)

    assert east.from_web(short).verdict == SHOT
    assert east.drops() == {"L4_TRUNCATED egress": 1}
    assert east.from_web(frame(ip(*V4, udp(1, 2))) + bytes(13)).verdict == REDIRECT


@pytest.mark.parametrize("source", ["10.2.0.2", "10.2.0.3", "fd00:10:2::3"])
def test_health_and_ingress_speak_from_the_addresses_their_nodes_key_names(
    east: Node, source: str
) -> None:
    vni, other = (4, 8) if source.endswith("2") else (8, 4)
    to = "10.1.0.10" if "." in source else "fd00:10:1::10"
    inner = frame(ip(source, to, udp(1, 2)))

    done = east.from_underlay(vxlan_frame("192.0.2.2", "192.0.2.1", vni=vni, inner=inner))
    assert done.verdict == REDIRECT, east.drops()
    assert read(done.packet).source == ip_address(source)
    assert east.seen() == {(10, vni): 1}
    east.from_underlay(vxlan_frame("192.0.2.2", "192.0.2.1", vni=other, inner=inner))
    assert east.drops() == {f"IDENTITY_{'INGRESS' if other == 8 else 'HEALTH'} ingress": 1}


def test_a_tunnel_inside_the_mesh_is_nobodys_business(east: Node) -> None:
    """Endpoints may speak VXLAN and GRE to each other: nobody unpacks it on the way."""
    for payload in (udp(1, 8472, bytes(60)), udp(1, 6081, bytes(60)), Payload(47, bytes(40))):
        assert east.from_web(frame(ip(*V4, payload))).verdict == REDIRECT, east.drops()
        inner = frame(ip("10.2.0.10", "10.1.0.10", payload))
        arrived = vxlan_frame("192.0.2.2", "192.0.2.1", vni=API, inner=inner)
        assert east.from_underlay(arrived).verdict == REDIRECT, east.drops()
