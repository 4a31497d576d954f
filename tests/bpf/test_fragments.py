"""Fragments of an endpoint's packets: the later ones follow the first."""

from __future__ import annotations

import struct

import pytest

from tests.support.bpf import OK, REDIRECT, SHOT, WEB, Node
from tests.support.packets import FRAGMENT, UDP, Packet, Payload, extension, frame, ip, udp
from tests.support.talk import HERE, NEIGHBOUR, THERE, Talk

pytestmark = pytest.mark.bpf


def piece(
    family: int,
    payload: Payload,
    *,
    first: bool,
    number: int = 7,
    source: str | None = None,
    to: str | None = None,
    last: bool = True,
) -> Packet:
    """A fragment of an IP packet; `number` is its identification."""
    ends = (source or HERE[family], to or THERE[family])
    offset = 0 if first else 185
    if family == 4:
        more = 0x2000 if first or not last else 0
        whole = ip(*ends, payload, fragment=more | offset)
        header = bytearray(whole.data)
        struct.pack_into("!H", header, 4, number)
        return Packet(whole.ether_type, bytes(header))
    flags = offset << 3 | (first or not last)
    header6 = struct.pack("!BBHI", payload.protocol, 0, flags, number)
    return ip(*ends, Payload(FRAGMENT, header6 + payload.data))


REST = Payload(UDP, b"\xff" * 24)


def test_later_fragments_are_of_the_first_ones_flow(talk: Talk) -> None:
    assert talk.out_packet(piece(talk.family, udp(4000, 53, bytes(16)), first=True)) == REDIRECT
    assert talk.out_packet(piece(talk.family, REST, first=False, last=False)) == REDIRECT
    assert talk.out_packet(piece(talk.family, REST, first=False)) == REDIRECT

    row = talk.row()
    assert (row["endpoint_port"], row["peer_port"]) == (4000, 53)


def test_the_same_for_what_comes_by_the_tunnel(talk: Talk) -> None:
    ends = {"source": THERE[talk.family], "to": HERE[talk.family]}
    assert (
        talk.back_packet(piece(talk.family, udp(53, 4000, bytes(16)), first=True, **ends))
        == REDIRECT
    )
    assert talk.back_packet(piece(talk.family, REST, first=False, **ends)) == REDIRECT

    row = talk.row()
    assert (row["endpoint_port"], row["peer_port"], row["began"]) == (4000, 53, "peer")


def test_a_later_fragment_whose_first_was_not_seen_is_refused(talk: Talk) -> None:
    talk.out_packet(piece(talk.family, udp(4000, 53, bytes(16)), first=True, number=6))

    assert talk.out_packet(piece(talk.family, REST, first=False)) == SHOT

    assert talk.east.drops() == {"FRAGMENT_WITHOUT_FIRST egress": 1}


def test_fragments_of_a_sender_that_is_not_believed_teach_nothing(talk: Talk) -> None:
    ends = {"source": THERE[talk.family], "to": HERE[talk.family]}
    lie = piece(talk.family, udp(1, 2, bytes(16)), first=True, **ends)
    assert talk.back_packet(lie, vni=3 << 16 | 400) == SHOT

    assert talk.back_packet(piece(talk.family, REST, first=False, **ends)) == SHOT
    assert talk.east.drops()["FRAGMENT_WITHOUT_FIRST ingress"] == 1


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_between_two_endpoints_of_a_node(east: Node, family: int) -> None:
    to = NEIGHBOUR[family]
    for part, first in ((udp(4000, 53, bytes(16)), True), (REST, False)):
        assert east.from_web(frame(piece(family, part, first=first, to=to))).verdict == REDIRECT

    rows = east.dataplane.dump("conntrack")
    assert sorted(row["endpoint_port"] for row in rows) == [53, 4000]
    assert east.seen() == {(11, WEB): 2}


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_that_the_nodes_own_stack_sends(east: Node, family: int) -> None:
    ends = {"source": {4: "10.1.0.1", 6: "fd00:10:1::1"}[family], "to": HERE[family]}
    for part, first in ((udp(4000, 53, bytes(16)), True), (REST, False)):
        sent = frame(piece(family, part, first=first, **ends))
        assert east.send("to_endpoint", sent, east.web).verdict == OK
    stray = frame(piece(family, REST, first=False, number=8, **ends))
    assert east.send("to_endpoint", stray, east.web).verdict == SHOT

    (row,) = east.dataplane.dump("conntrack")
    assert (row["endpoint_port"], row["peer_port"]) == (53, 4000)


def test_a_fragmented_extension_header_hides_no_port(east: Node) -> None:
    """IPv6's first fragment may name another next header than the later ones find useful."""
    first = piece(6, extension(udp(4000, 53, bytes(16))), first=True)
    later = piece(6, Payload(60, b"\0" * 16), first=False)

    assert east.from_web(frame(first)).verdict == REDIRECT
    assert east.from_web(frame(later)).verdict == REDIRECT
    (row,) = east.dataplane.dump("conntrack")
    assert (row["protocol"], row["peer_port"]) == ("udp", 53)
