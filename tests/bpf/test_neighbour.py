"""Who has the gateway's address? The answer is made of the question, in BPF."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address

import pytest

from tests.support.bpf import GATEWAY_MAC, OK, REDIRECT, SHOT, Node
from tests.support.packets import (
    ETH_ARP,
    ICMPV6,
    Packet,
    Payload,
    extension,
    frame,
    icmpv6_checksum,
    ip,
    read,
)

pytestmark = pytest.mark.bpf

MAC = "020000000110"
LINK_LOCAL = "fe80::ff:fe00:1"
"""The gateway's: 02:00:00:00:00:01 as EUI-64."""


def arp(target: str, *, sender: str = "10.1.0.10", operation: int = 1, hardware: int = 1) -> bytes:
    body = struct.pack("!HHBBH", hardware, 0x0800, 6, 4, operation)
    body += bytes.fromhex(MAC) + ip_address(sender).packed + bytes(6) + ip_address(target).packed
    return frame(Packet(ETH_ARP, body), to="ffffffffffff", of=MAC)


def solicitation(
    target: str,
    *,
    source: str = "fd00:10:1::10",
    to: str = "ff02::1:ff00:1",
    hops: int = 255,
    code: int = 0,
    option: bool = True,
) -> bytes:
    body = struct.pack("!BBHI", 135, code, 0, 0) + IPv6Address(target).packed
    body += b"\x01\x01" + bytes.fromhex(MAC) if option else b""
    return frame(ip(source, to, Payload(ICMPV6, body), ttl=hops), to="3333ff000001", of=MAC)


def test_a_request_for_the_gateway_is_answered_into_the_endpoint(east: Node) -> None:
    done = east.from_web(arp("10.1.0.1"))

    assert done.verdict == REDIRECT
    to, of, body = done.packet[:6].hex(), done.packet[6:12].hex(), done.packet[14:]
    assert (to, of) == (MAC, GATEWAY_MAC)
    assert struct.unpack_from("!HHBBH", body) == (1, 0x0800, 6, 4, 2)
    assert body[8:14].hex() == GATEWAY_MAC
    assert body[14:18] == ip_address("10.1.0.1").packed
    assert body[18:24].hex() == MAC
    assert body[24:28] == ip_address("10.1.0.10").packed
    assert east.counters() == {"neighbours_answered": 1}


def test_a_probe_without_an_address_is_answered_too(east: Node) -> None:
    assert east.from_web(arp("10.1.0.1", sender="0.0.0.0")).verdict == REDIRECT


@pytest.mark.parametrize(
    "sent",
    [arp("10.1.0.11"), arp("10.1.0.1", operation=2), arp("10.1.0.1", hardware=6)],
    ids=["another address", "an answer", "another medium"],
)
def test_other_arp_is_the_stacks(east: Node, sent: bytes) -> None:
    done = east.from_web(sent)

    assert (done.verdict, done.packet) == (OK, sent)
    assert east.counters() == {"to_stack": 1}


@pytest.mark.parametrize("operation", [1, 2])
def test_a_sender_that_claims_anothers_address_is_refused(east: Node, operation: int) -> None:
    done = east.from_web(arp("10.1.0.1", sender="10.1.0.11", operation=operation))

    assert done.verdict == SHOT
    assert east.drops() == {"INVALID_SOURCE egress": 1}
    assert east.one_event().source == ip_address("10.1.0.11")


@pytest.mark.parametrize("target", ["fd00:10:1::1", LINK_LOCAL])
@pytest.mark.parametrize("to", ["ff02::1:ff00:1", "fd00:10:1::1"])
@pytest.mark.parametrize("source", ["fd00:10:1::10", "fe80::10"])
@pytest.mark.parametrize("option", [True, False])
def test_a_solicitation_for_the_gateway_is_answered(
    east: Node, target: str, to: str, source: str, option: bool
) -> None:
    if source.startswith("fe80") and to.startswith("fd00"):
        to = LINK_LOCAL
    done = east.from_web(solicitation(target, source=source, to=to, option=option))

    assert done.verdict == REDIRECT
    answer = read(done.packet)
    assert (answer.to, answer.of) == (MAC, GATEWAY_MAC)
    assert (answer.source, answer.destination) == (ip_address(target), ip_address(source))
    assert (answer.protocol, answer.ttl) == (ICMPV6, 255)
    kind, code, _, flags = struct.unpack_from("!BBHB", answer.payload)
    assert (kind, code, flags) == (136, 0, 0xE0), "router, solicited, override"
    assert answer.payload[8:24] == IPv6Address(target).packed
    assert answer.payload[24:] == b"\x02\x01" + bytes.fromhex(GATEWAY_MAC)
    assert icmpv6_checksum(answer) == 0


def test_one_that_wants_the_gateways_address_is_told_that_it_is_taken(east: Node) -> None:
    """Duplicate address detection: the answer goes to all, since the asker has no address."""
    done = east.from_web(solicitation("fd00:10:1::1", source="::", option=False))

    answer = read(done.packet)
    assert answer.destination == ip_address("ff02::1")
    assert answer.payload[4] == 0xA0, "router, override"
    assert icmpv6_checksum(answer) == 0


@pytest.mark.parametrize(
    "sent",
    [
        solicitation("fd00:10:1::11"),
        solicitation("fe80::10", source="::"),
        solicitation("fd00:10:1::1", hops=64),
        solicitation("fd00:10:1::1", code=1),
        frame(
            ip(
                "fd00:10:1::10",
                "ff02::1:ff00:1",
                extension(Payload(ICMPV6, bytes([135]) + bytes(31))),
                ttl=255,
            )
        ),
    ],
    ids=["another address", "its own", "from afar", "code", "extension header"],
)
def test_other_solicitations_are_the_stacks(east: Node, sent: bytes) -> None:
    done = east.from_web(sent)

    assert (done.verdict, done.packet) == (OK, sent)
    assert east.drops() == {}


def test_a_solicitation_from_anothers_address_is_refused(east: Node) -> None:
    done = east.from_web(solicitation("fd00:10:1::1", source="fd00:10:1::11"))

    assert done.verdict == SHOT
    assert east.drops() == {"INVALID_SOURCE egress": 1}


def test_one_that_ends_early_is_refused(east: Node) -> None:
    short = frame(ip("fd00:10:1::10", "ff02::1:ff00:1", Payload(ICMPV6, bytes([135, 0, 0, 0]))))

    assert east.from_web(short).verdict == SHOT
    assert east.drops() == {"L4_TRUNCATED egress": 1}
