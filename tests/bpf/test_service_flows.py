"""Which backend a flow has, for how long, and how two flows that look alike are told apart."""

from __future__ import annotations

import time

import pytest

from tests.support.asking import BACK, CLIENT, FRONT, OTHER, REMOTE, TOO, VIP, WEB, Asking
from tests.support.bpf import OK, REDIRECT, SHOT
from tests.support.packets import ACK, FIN, RST, SYN, frame, ip, segment, summed, udp

pytestmark = pytest.mark.bpf

PORTS = range(6000, 6024)
"""Enough flows that both of two backends get some: all of them with one is 1 in 2^23."""


def backend(asking: Asking, flags: int, port: int = CLIENT) -> str:
    """Who gets this segment of web's."""
    return str(asking.asked(segment(port, FRONT, flags)).destination)


def about(seconds: int) -> range:
    return range(seconds - 4, seconds + 3)


def left_s(asking: Asking) -> set[int]:
    rows = asking.rows()
    assert len(rows) == 2
    return {row["expires_s"] for row in rows}


def states(asking: Asking) -> set[str]:
    return {row["state"] for row in asking.rows()}


def test_a_flow_keeps_its_backend_while_that_is_there(asking: Asking) -> None:
    one, two = REMOTE[asking.family], OTHER[asking.family]
    asking.serve(one)
    for port in PORTS:
        assert backend(asking, SYN, port) == one

    asking.serve(one, two, two, two)

    assert {backend(asking, ACK, port) for port in PORTS} == {one}


def test_a_flow_whose_backend_is_gone_goes_to_another(asking: Asking) -> None:
    """Which knows nothing of the connection, and says so: the client learns it at once."""
    one, two = REMOTE[asking.family], OTHER[asking.family]
    asking.serve(one)
    assert backend(asking, SYN) == one

    asking.serve(two)

    assert backend(asking, ACK) == two
    packet = asking.answered(segment(BACK, CLIENT, RST), of=two)
    assert (str(packet.source), packet.ports) == (VIP[asking.family], (FRONT, CLIENT))


def test_a_backend_that_ends_finishes_what_it_has_and_gets_nothing_new(asking: Asking) -> None:
    one, two = REMOTE[asking.family], OTHER[asking.family]
    asking.serve(one)
    backend(asking, SYN)
    asking.asked(udp(CLIENT, FRONT))

    asking.serve(two, terminating=(one,))

    assert backend(asking, ACK) == one
    assert str(asking.asked(udp(CLIENT, FRONT)).destination) == one
    assert {backend(asking, SYN, port) for port in PORTS} == {two}
    assert backend(asking, SYN) == two, "the same ports once more are a new connection"


def test_a_connection_that_is_over_is_not_the_next_one(asking: Asking) -> None:
    one, two = REMOTE[asking.family], OTHER[asking.family]
    asking.serve(one)
    for port in PORTS:
        backend(asking, SYN, port)
        asking.answered(segment(BACK, port, RST))
    asking.serve(one, two)

    assert {backend(asking, SYN, port) for port in PORTS} == {one, two}


def test_a_syn_that_is_sent_again_goes_to_the_same_backend(asking: Asking) -> None:
    asking.serve(REMOTE[asking.family], OTHER[asking.family])

    for port in PORTS:
        assert len({backend(asking, SYN, port) for _ in range(3)}) == 1


def test_with_affinity_all_flows_of_a_client_have_one_backend(asking: Asking) -> None:
    asking.serve(REMOTE[asking.family], OTHER[asking.family], affinity_s=60)

    assert len({backend(asking, SYN, port) for port in PORTS}) == 1

    (row,) = asking.node.dataplane.dump("service_affinity")
    assert row["client"] == WEB[asking.family]


def test_without_a_backend_a_flow_that_had_one_is_refused(asking: Asking) -> None:
    asking.serve(REMOTE[asking.family])
    backend(asking, SYN)

    asking.serve()

    assert asking.send(segment(CLIENT, FRONT, ACK)).verdict == REDIRECT, "the sender is told"
    assert asking.node.drops() == {"SERVICE_NO_BACKEND egress": 1}


def test_two_services_of_one_backend_are_told_apart_though_the_client_uses_one_port(
    asking: Asking,
) -> None:
    family = asking.family
    asking.serve(REMOTE[family])
    asking.serve(REMOTE[family], at=TOO[family])

    first = asking.asked(udp(CLIENT, FRONT))
    second = asking.asked(udp(CLIENT, FRONT), to=TOO[family])

    assert first.ports == (CLIENT, BACK)
    port = second.ports[0]
    assert port >= 0xC000
    for seen, vip in ((CLIENT, VIP[family]), (port, TOO[family])):
        packet = asking.answered(udp(BACK, seen))
        assert (str(packet.source), packet.ports) == (vip, (FRONT, CLIENT))
    assert asking.asked(udp(CLIENT, FRONT), to=TOO[family]).ports == (port, BACK)


def test_a_service_leaves_the_clients_own_flow_to_the_backend_alone(asking: Asking) -> None:
    family = asking.family
    asking.serve(REMOTE[family])
    assert asking.asked(udp(CLIENT, BACK), to=REMOTE[family]).ports == (CLIENT, BACK)

    port = asking.asked(udp(CLIENT, FRONT)).ports[0]

    assert port >= 0xC000
    direct = asking.answered(udp(BACK, CLIENT))
    assert (str(direct.source), direct.ports) == (REMOTE[family], (BACK, CLIENT))
    packet = asking.answered(udp(BACK, port))
    assert (str(packet.source), packet.ports) == (VIP[family], (FRONT, CLIENT))


def test_a_flow_of_its_own_that_looks_like_a_services_is_refused(asking: Asking) -> None:
    """Its answers would go to who asked the service."""
    asking.serve(REMOTE[asking.family])
    asking.asked(udp(CLIENT, FRONT))

    assert asking.send(udp(CLIENT, BACK), to=REMOTE[asking.family]).verdict == SHOT
    assert asking.node.drops() == {"SERVICE_AMBIGUOUS egress": 1}


def test_a_tcp_flow_lives_as_long_as_its_state_says(asking: Asking) -> None:
    asking.serve(REMOTE[asking.family])
    backend(asking, SYN)
    assert (left_s(asking) <= set(about(240)), states(asking)) == (True, {"new"})

    asking.answered(segment(BACK, CLIENT, SYN | ACK))
    assert (left_s(asking) <= set(about(8000)), states(asking)) == (True, {"answered"})

    backend(asking, FIN | ACK)
    asking.answered(segment(BACK, CLIENT, FIN | ACK))
    assert (left_s(asking) <= set(about(240)), states(asking)) == (True, {"closed"})


@pytest.mark.parametrize("back", [False, True], ids=["sent", "received"])
def test_each_way_keeps_both_rows_alive(asking: Asking, back: bool) -> None:
    asking.serve(REMOTE[asking.family])
    asking.asked(udp(CLIENT, FRONT))
    asking.change(expires=int(time.monotonic_ns() >> 30) + 3)

    asking.answered(udp(BACK, CLIENT)) if back else asking.asked(udp(CLIENT, FRONT))

    assert left_s(asking) <= set(about(120))


@pytest.mark.parametrize("back", [False, True], ids=["the way there", "the way back"])
def test_a_row_that_the_lru_took_comes_back_from_the_other(asking: Asking, back: bool) -> None:
    family = asking.family
    asking.serve(REMOTE[family])
    asking.asked(udp(CLIENT, FRONT))
    asking.change(expires=int(time.monotonic_ns() >> 30) + 3)
    asking.forget("service_flows", REMOTE[family] if back else VIP[family])

    asking.asked(udp(CLIENT, FRONT)) if back else asking.answered(udp(BACK, CLIENT))

    assert len(asking.rows()) == 2


def test_an_answer_is_known_without_its_row_of_conntrack(asking: Asking) -> None:
    """Else the endpoint would get it from the backend, and reset the connection."""
    family = asking.family
    asking.serve(REMOTE[family])
    backend(asking, SYN)
    asking.forget("conntrack", REMOTE[family])

    for _ in range(2):
        packet = asking.answered(segment(BACK, CLIENT, SYN | ACK))
        assert (str(packet.source), packet.ports) == (VIP[family], (FRONT, CLIENT))


def test_an_answer_that_nobody_can_translate_is_refused(asking: Asking) -> None:
    asking.serve(REMOTE[asking.family])
    asking.asked(udp(CLIENT, FRONT))
    asking.change(expires=1)

    assert asking.answer(udp(BACK, CLIENT)).verdict == SHOT
    assert asking.node.drops() == {"SERVICE_NO_FLOW ingress": 1}


def test_what_is_over_is_swept(asking: Asking) -> None:
    asking.serve(REMOTE[asking.family])
    asking.asked(udp(CLIENT, FRONT))
    asking.change(expires=1)
    asking.asked(udp(CLIENT + 1, FRONT))

    assert asking.node.dataplane.sweep_conntrack() == 2
    assert {row["client_port"] for row in asking.rows()} == {CLIENT + 1}


def test_who_claims_to_be_the_frontend_is_no_answer_and_ends_no_flow(asking: Asking) -> None:
    """The host forwards it, from a place in the world that has the frontend's address."""
    asking.serve(REMOTE[asking.family])
    asking.asked(udp(CLIENT, FRONT))
    web, vip = WEB[asking.family], VIP[asking.family]
    forged = frame(ip(vip, web, summed(vip, web, udp(FRONT, CLIENT, b"lie"))))

    done = asking.node.send("to_endpoint", forged, asking.node.web)

    assert (done.verdict, done.packet) == (OK, forged), "as any datagram of a stranger"
    assert asking.asked(udp(CLIENT, FRONT)).ports == (CLIENT, BACK)
    assert asking.answered(udp(BACK, CLIENT)).ports == (FRONT, CLIENT)
    assert asking.node.drops() == {}
