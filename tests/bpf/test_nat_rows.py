"""Ports of the pool: whose they are, for how long, and what happens when there are none."""

from __future__ import annotations

import time

import pytest

from meshnet.dataplane import abi
from meshnet.dataplane.rows import known_address
from tests.support.bpf import NOT_OURS, REDIRECT, SHOT
from tests.support.packets import ACK, FIN, RST, SYN, read, segment, udp
from tests.support.world import DB, FEW_PORTS, NODE, SERVER, WEB, Visit, echo

pytestmark = pytest.mark.bpf

TICK_S = 2**30 / 1e9


def left_s(visit: Visit) -> list[int]:
    """Of both rows of the one flow there is."""
    rows = visit.rows()
    assert len(rows) == 2
    return [row["expires_s"] for row in rows]


def about(seconds: int) -> range:
    return range(seconds - 4, seconds + 3)


def forget(visit: Visit, address: str) -> None:
    """The row with this address in its key, as the LRU may do."""
    nat = visit.node.map("nat")
    (key,) = [
        key
        for key, _ in nat.items()
        if str(known_address(bytes(abi.NatKey.from_buffer_copy(key).local))) == address
    ]
    nat.delete(key)


def test_a_tcp_flow_lives_as_long_as_its_state_says(visit: Visit) -> None:
    def state() -> set[str]:
        return {row["state"] for row in visit.rows()}

    visit.hidden(segment(50123, 80, SYN))
    assert (set(left_s(visit)) <= set(about(240)), state()) == (True, {"new"})

    visit.back(segment(80, 50123, SYN | ACK))
    assert (set(left_s(visit)) <= set(about(8000)), state()) == (True, {"answered"})

    visit.hidden(segment(50123, 80, FIN | ACK))
    assert state() == {"answered"}, "one side has closed, the other may still send"
    visit.back(segment(80, 50123, FIN | ACK))
    assert (set(left_s(visit)) <= set(about(240)), state()) == (True, {"closed"})

    visit.hidden(segment(50123, 80, SYN))
    assert state() == {"new"}, "the same ports once more"


@pytest.mark.parametrize("back", [False, True], ids=["sent", "received"])
def test_a_reset_closes(visit: Visit, back: bool) -> None:
    visit.hidden(segment(50123, 80, SYN))
    visit.back(segment(80, 50123, SYN | ACK))

    visit.back(segment(80, 50123, RST)) if back else visit.hidden(segment(50123, 80, RST))

    assert {row["state"] for row in visit.rows()} == {"closed"}
    assert set(left_s(visit)) <= set(about(240))


@pytest.mark.parametrize(("kind", "seconds"), [("udp", 120), ("ping", 60)])
def test_other_flows_live_from_packet_to_packet(visit: Visit, kind: str, seconds: int) -> None:
    sent = udp(50123, 53) if kind == "udp" else echo(visit.family, 50123)
    visit.hidden(sent)

    assert set(left_s(visit)) <= set(about(seconds))


@pytest.mark.parametrize("back", [False, True], ids=["sent", "received"])
def test_each_way_keeps_both_rows_alive(visit: Visit, back: bool) -> None:
    visit.hidden(udp(50123, 53))
    visit.change(expires=int(time.monotonic_ns() >> 30) + 3)

    if back:
        assert visit.back(udp(53, 50123)).verdict == REDIRECT
    else:
        visit.hidden(udp(50123, 53))

    assert set(left_s(visit)) <= set(about(120))


@pytest.mark.parametrize("back", [False, True], ids=["the way out", "the way back"])
def test_a_row_that_the_lru_took_comes_back_from_the_other(visit: Visit, back: bool) -> None:
    visit.hidden(udp(50123, 53))
    visit.change(expires=int(time.monotonic_ns() >> 30) + 3)
    forget(visit, NODE[visit.family] if back else WEB[visit.family])

    if back:
        visit.hidden(udp(50123, 53))
    else:
        assert visit.back(udp(53, 50123)).verdict == REDIRECT

    assert len(visit.rows()) == 2


def test_an_answer_that_comes_too_late_is_the_nodes_own(visit: Visit) -> None:
    visit.hidden(udp(50123, 53))
    visit.change(expires=1)

    assert visit.back(udp(53, 50123)).verdict == NOT_OURS


def test_a_port_whose_time_is_over_is_anybodys(visit: Visit) -> None:
    family = visit.family
    visit.hidden(udp(50123, 53))
    visit.change(expires=1)

    done = visit.send(DB[family], SERVER[family], udp(50123, 53))

    assert read(done.packet).ports[0] == 50123
    assert str(read(visit.back(udp(53, 50123)).packet).destination) == DB[family]


def test_what_is_over_is_swept_with_conntrack(visit: Visit) -> None:
    visit.hidden(udp(50123, 53))
    visit.change(expires=1)
    visit.hidden(udp(50124, 53))

    assert visit.node.dataplane.sweep_conntrack() == 2
    assert {row["local_port"] for row in visit.rows()} == {50124}
    assert visit.node.dataplane.sweep_conntrack() == 0


def test_who_lost_a_port_meanwhile_gets_another(visit: Visit) -> None:
    """Its row on the way out is still good, but the way back is another flow's."""
    family = visit.family
    visit.hidden(udp(50123, 53))
    forget(visit, NODE[family])
    visit.send(DB[family], SERVER[family], udp(50123, 53))
    visit.change(expires=int(time.monotonic_ns() >> 30) + 3)

    port = visit.hidden(udp(50123, 53)).ports[0]

    assert port != 50123
    assert str(read(visit.back(udp(53, port)).packet).destination) == WEB[family]
    assert str(read(visit.back(udp(53, 50123)).packet).destination) == DB[family]


def test_every_port_is_used_before_one_is_missing(cramped: Visit) -> None:
    first, last = FEW_PORTS
    found = {cramped.hidden(udp(source, 53)).ports[0] for source in range(5000, 5004)}

    assert found == set(range(first, last + 1))
    assert cramped.out(udp(5004, 53)).verdict == SHOT
    assert cramped.node.drops() == {"NAT_NO_PORT egress": 1}
    assert len(cramped.rows()) == 8, "what failed left nothing"


def test_without_a_port_those_who_have_one_go_on(cramped: Visit) -> None:
    ports = {source: cramped.hidden(udp(source, 53)).ports[0] for source in range(5000, 5004)}
    cramped.out(udp(5004, 53))

    for source, port in ports.items():
        assert cramped.hidden(udp(source, 53)).ports[0] == port
        answer = read(cramped.back(udp(53, port)).packet)
        assert answer.ports == (53, source)
