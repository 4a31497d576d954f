"""ICMP errors belong to the flow whose packet they quote."""

from __future__ import annotations

import struct

import pytest

from tests.support.bpf import REDIRECT
from tests.support.packets import Packet, Payload, ip, tcp, udp
from tests.support.talk import HERE, NEIGHBOUR, THERE, Talk, echo, icmp

pytestmark = pytest.mark.bpf

KINDS = {4: [3, 11, 12], 6: [1, 2, 3, 4]}


def error(family: int, kind: int, source: str, to: str, quoted: Packet) -> Packet:
    """Quotes the IP header and 8 bytes more, which is the least there may be."""
    length = {4: 28, 6: 48}[family]
    return ip(source, to, icmp(family, kind, bytes(4) + quoted.data[:length]))


def went_out(talk: Talk, payload: Payload) -> Packet:
    packet = ip(HERE[talk.family], THERE[talk.family], payload)
    assert talk.out_packet(packet) == REDIRECT
    return packet


def errors(talk: Talk, quoted: Packet, source: str | None = None) -> list[Packet]:
    """Each kind there is, to the endpoint here."""
    f = talk.family
    return [error(f, kind, source or THERE[f], HERE[f], quoted) for kind in KINDS[f]]


def related(talk: Talk) -> int:
    return talk.east.counters().get("related", 0)


@pytest.mark.parametrize("payload", [udp(4000, 53), tcp(4000, 80)], ids=["udp", "tcp"])
def test_an_error_about_a_flow_that_passes_passes(talk: Talk, payload: Payload) -> None:
    quoted = went_out(talk, payload)
    before = talk.rows()

    for packet in errors(talk, quoted):
        assert talk.back_packet(packet) == REDIRECT

    assert related(talk) == len(KINDS[talk.family])
    assert talk.rows() == before, "an error has no row, and leaves that of its flow as it is"


def test_an_error_about_a_ping(talk: Talk) -> None:
    quoted = went_out(talk, echo(0, 77, talk.family))

    talk.back_packet(errors(talk, quoted)[0])

    assert related(talk) == 1


def test_a_router_between_may_send_it(talk: Talk) -> None:
    quoted = went_out(talk, udp(4000, 53))

    talk.back_packet(errors(talk, quoted, {4: "10.2.0.77", 6: "fd00:10:2::77"}[talk.family])[0])

    assert related(talk) == 1


def test_an_endpoint_complains_of_what_it_got(talk: Talk) -> None:
    family = talk.family
    quoted = ip(THERE[family], HERE[family], udp(53, 4000))
    talk.back_packet(quoted)

    for kind in KINDS[family]:
        assert talk.out_packet(error(family, kind, HERE[family], THERE[family], quoted)) == REDIRECT

    assert related(talk) == len(KINDS[family])


def test_an_error_about_no_flow_known_is_not_related(talk: Talk) -> None:
    family = talk.family
    went_out(talk, udp(4000, 53))
    for payload in (udp(4000, 54), udp(4001, 53), tcp(4000, 53)):
        talk.back_packet(errors(talk, ip(HERE[family], THERE[family], payload))[0])

    assert related(talk) == 0
    assert len(talk.rows()) == 1


def test_an_error_about_anothers_flow_is_not_related(talk: Talk) -> None:
    """Nor may an endpoint complain of what another one of its node got."""
    family = talk.family
    quoted = went_out(talk, udp(4000, 53))
    talk.back_packet(error(family, KINDS[family][0], THERE[family], NEIGHBOUR[family], quoted))

    got = ip(THERE[family], NEIGHBOUR[family], udp(53, 4000))
    talk.back_packet(got)
    talk.out_packet(error(family, KINDS[family][0], HERE[family], THERE[family], got))

    assert related(talk) == 0


def test_an_error_is_not_related_to_a_flow_that_is_over(talk: Talk) -> None:
    quoted = went_out(talk, udp(4000, 53))
    talk.set(expires=0)

    talk.back_packet(errors(talk, quoted)[0])

    assert related(talk) == 0


@pytest.mark.parametrize("length", [0, 4, 20, 23])
def test_a_quote_cut_short_is_not_related_and_does_no_harm(talk: Talk, length: int) -> None:
    family = talk.family
    quoted = went_out(talk, udp(4000, 53))
    cut = icmp(family, KINDS[family][0], bytes(4) + quoted.data[:length])

    assert talk.back(cut) == REDIRECT
    assert related(talk) == 0


def test_a_quote_of_the_wrong_version_is_not_related(talk: Talk) -> None:
    went_out(talk, udp(4000, 53))
    quoted = struct.pack("!B", 0x55) + bytes(60)

    assert talk.back(icmp(talk.family, KINDS[talk.family][0], bytes(4) + quoted)) == REDIRECT
    assert related(talk) == 0
