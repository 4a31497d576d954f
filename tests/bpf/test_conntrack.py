"""Connection tracking: what a node remembers of a flow, and for how long."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from meshnet.dataplane import conntrack
from meshnet.dataplane.abi import ConntrackLifetime
from tests.support.bpf import API, DB, OK, REDIRECT, WEB, Node, endpoint
from tests.support.packets import Payload, frame, ip, udp
from tests.support.talk import HERE, NEIGHBOUR, THERE, Talk, echo

pytestmark = pytest.mark.bpf

FIN, SYN, RST, ACK = 1, 2, 4, 16
both = pytest.mark.parametrize("family", [4, 6])


def segment(source: int, destination: int, flags: int) -> Payload:
    return Payload(6, struct.pack("!HHIIBBHHH", source, destination, 1, 1, 5 << 4, flags, 9, 0, 0))


def lives(row: dict[str, Any], ticks: int) -> bool:
    return abs(row["expires_s"] - ticks * 2**30 / 1e9) < 5


def test_a_flow_has_one_row_from_its_endpoints_side(talk: Talk) -> None:
    assert talk.out(udp(4000, 53)) == REDIRECT
    assert talk.row()["state"] == "new"
    assert talk.back(udp(53, 4000)) == REDIRECT

    row = talk.row()
    expires = row.pop("expires_s")
    assert row == {
        "endpoint": HERE[talk.family],
        "peer": THERE[talk.family],
        "endpoint_port": 4000,
        "peer_port": 53,
        "protocol": "udp",
        "began": "endpoint",
        "guessed": False,
        "by_service": False,
        "state": "established",
        "remote_identity": API,
        "policy_epoch": 0,
    }
    assert 50 < expires <= 61


def test_the_peer_may_begin(talk: Talk) -> None:
    assert talk.back(udp(53, 4000)) == REDIRECT

    assert (talk.row()["began"], talk.row()["endpoint_port"]) == ("peer", 4000)


@both
def test_two_endpoints_of_a_node_have_a_row_each(east: Node, family: int) -> None:
    assert east.from_web(frame(ip(HERE[family], NEIGHBOUR[family], udp(4000, 53)))).verdict == 7

    rows = {row["endpoint"]: row for row in east.dataplane.dump("conntrack")}
    assert rows.keys() == {HERE[family], NEIGHBOUR[family]}
    mine, theirs = rows[HERE[family]], rows[NEIGHBOUR[family]]
    assert (mine["began"], mine["peer_port"], mine["remote_identity"]) == ("endpoint", 53, DB)
    assert (theirs["began"], theirs["peer_port"], theirs["remote_identity"]) == ("peer", 4000, WEB)


@both
def test_what_the_nodes_own_stack_sends_has_a_row(east: Node, family: int) -> None:
    source = {4: "10.1.0.1", 6: "fd00:10:1::1"}[family]
    sent = frame(ip(source, HERE[family], udp(4000, 53)))

    assert east.send("to_endpoint", sent, east.web).verdict == OK

    (row,) = east.dataplane.dump("conntrack")
    assert (row["began"], row["peer"], row["remote_identity"]) == ("peer", source, 1)


def test_an_open_tcp_connection_lives_for_hours_and_a_half_open_one_for_a_minute(
    talk: Talk,
) -> None:
    talk.out(segment(4000, 80, SYN))
    assert lives(talk.row(), ConntrackLifetime.TCP_OPENING)
    talk.back(segment(80, 4000, SYN | ACK))
    assert lives(talk.row(), ConntrackLifetime.TCP_OPENING)
    talk.out(segment(4000, 80, ACK))
    assert lives(talk.row(), ConntrackLifetime.TCP_ESTABLISHED)
    assert talk.row()["state"] == "established"


def opened(talk: Talk) -> None:
    talk.out(segment(4000, 80, SYN))
    talk.back(segment(80, 4000, SYN | ACK))
    talk.out(segment(4000, 80, ACK))


def test_a_half_closed_connection_stays(talk: Talk) -> None:
    opened(talk)
    talk.out(segment(4000, 80, FIN | ACK))
    talk.back(segment(80, 4000, ACK))

    assert talk.row()["state"] == "established"
    assert lives(talk.row(), ConntrackLifetime.TCP_ESTABLISHED)


def test_fins_both_ways_close_it_and_nothing_keeps_it_alive(talk: Talk) -> None:
    opened(talk)
    talk.out(segment(4000, 80, FIN | ACK))
    talk.back(segment(80, 4000, FIN | ACK))
    assert talk.row()["state"] == "closed"
    assert lives(talk.row(), ConntrackLifetime.TCP_CLOSED)

    talk.out(segment(4000, 80, ACK))
    assert lives(talk.row(), ConntrackLifetime.TCP_CLOSED)


@pytest.mark.parametrize("by_peer", [False, True])
def test_a_reset_closes_it_at_once(talk: Talk, by_peer: bool) -> None:
    opened(talk)

    talk.back(segment(80, 4000, RST)) if by_peer else talk.out(segment(4000, 80, RST))

    assert talk.row()["state"] == "closed"
    assert lives(talk.row(), ConntrackLifetime.TCP_CLOSED)


def test_a_closed_connections_ports_may_open_another(talk: Talk) -> None:
    opened(talk)
    talk.out(segment(4000, 80, RST))
    talk.out(segment(4000, 80, SYN))

    assert (talk.row()["state"], talk.row()["began"]) == ("new", "endpoint")
    assert lives(talk.row(), ConntrackLifetime.TCP_OPENING)


def test_the_called_side_cannot_open_a_connection_in_the_callers_name(talk: Talk) -> None:
    """Its SYN is a flow of its own, which policy judges."""
    opened(talk)
    talk.back(segment(80, 4000, SYN))

    assert (talk.row()["state"], talk.row()["began"]) == ("new", "peer")


def test_tcp_in_mid_stream_goes_on_without_its_row(talk: Talk) -> None:
    assert talk.back(segment(80, 4000, ACK)) == REDIRECT
    assert talk.row()["guessed"]
    assert lives(talk.row(), ConntrackLifetime.TCP_OPENING)

    assert talk.out(segment(4000, 80, ACK)) == REDIRECT
    assert lives(talk.row(), ConntrackLifetime.TCP_ESTABLISHED)


def test_question_and_answer_of_a_ping_are_one_row(talk: Talk) -> None:
    talk.out(echo(0, 77, talk.family))
    talk.back(echo(1, 77, talk.family))

    row = talk.row()
    assert (row["state"], row["began"]) == ("established", "endpoint")
    assert (row["endpoint_port"], row["peer_port"]) == (77, 8 if talk.family == 4 else 128)


def test_pings_of_one_identifier_both_ways_are_two_rows(talk: Talk) -> None:
    talk.out(echo(0, 77, talk.family))
    talk.back(echo(0, 77, talk.family))

    assert sorted(row["began"] for row in talk.rows()) == ["endpoint", "peer"]
    assert {row["state"] for row in talk.rows()} == {"new"}


def test_a_row_past_its_expiry_is_as_good_as_none(talk: Talk) -> None:
    talk.back(udp(53, 4000))
    talk.set(expires=conntrack.now_ticks())

    talk.out(udp(4000, 53))

    assert (talk.row()["state"], talk.row()["began"]) == ("new", "endpoint")
    assert lives(talk.row(), ConntrackLifetime.OTHER)


def test_a_row_is_refreshed_by_packets(talk: Talk) -> None:
    talk.out(udp(4000, 53))
    talk.set(expires=conntrack.now_ticks() + 3)

    talk.out(udp(4000, 53))

    assert lives(talk.row(), ConntrackLifetime.OTHER)


def test_a_new_epoch_or_identity_has_policy_asked_and_is_noted(talk: Talk) -> None:
    talk.out(udp(4000, 53))
    talk.set(remote_identity=12345)
    talk.east.dataplane.attach_endpoint(endpoint("web", 10, WEB, policy_epoch=7))

    talk.out(udp(4000, 53))
    assert (talk.row()["policy_epoch"], talk.row()["remote_identity"]) == (7, API)

    talk.set(policy_epoch=6)
    talk.back(udp(53, 4000))
    assert talk.row()["policy_epoch"] == 7


def test_neighbour_discovery_has_no_row(east: Node) -> None:
    east.from_web(frame(ip("fe80::1", "ff02::1:ff00:1", udp(0, 0))))
    east.from_web(frame(ip("::", "ff02::16", udp(0, 0))))
    east.send("to_endpoint", frame(ip("fe80::1", "fd00:10:1::10", udp(0, 0))), east.web)

    assert east.dataplane.dump("conntrack") == []
