"""An endpoint's packet to the world leaves by its node's address, and the answer finds it."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from tests.support.bpf import GATEWAY_MAC, NOT_OURS, OK, REDIRECT, SHOT, run
from tests.support.packets import Payload, frame, ip, read, tcp, udp
from tests.support.world import (
    DB,
    EXEMPTED,
    NODE,
    POOL,
    ROUTER,
    SERVER,
    WEB,
    Visit,
    assert_summed,
    echo,
)

pytestmark = pytest.mark.bpf

CARRIED = ["tcp", "udp", "ping"]


def payload(kind: str, family: int, source: int = 5000, destination: int = 80) -> Payload:
    if kind == "ping":
        return echo(family, source)
    return tcp(source, destination, b"GET") if kind == "tcp" else udp(source, destination)


def port_of(data: bytes, kind: str) -> int:
    """The one that masquerading writes."""
    (port,) = struct.unpack_from("!H", data, 4 if kind == "ping" else 0)
    return int(port)


def reply(kind: str, family: int, port: int) -> Payload:
    if kind == "ping":
        return echo(family, port, answer=True)
    return tcp(80, port, b"200") if kind == "tcp" else udp(80, port)


@pytest.mark.parametrize("kind", CARRIED)
def test_it_leaves_by_the_nodes_address_and_a_port_of_the_pool(visit: Visit, kind: str) -> None:
    packet = visit.hidden(payload(kind, visit.family))

    assert POOL[0] <= port_of(packet.payload, kind) <= POOL[1]
    assert packet.ttl == 63
    assert_summed(packet)
    assert packet.payload[8 if kind != "tcp" else 20 :] in (b"GET", b"hello", b"ping")
    assert visit.node.counters()["masqueraded"] == 1


@pytest.mark.parametrize("kind", CARRIED)
def test_the_answer_goes_to_the_endpoint_that_asked(visit: Visit, kind: str) -> None:
    port = port_of(visit.hidden(payload(kind, visit.family)).payload, kind)

    done = visit.back(reply(kind, visit.family, port))

    assert done.verdict == REDIRECT, visit.node.drops()
    packet = read(done.packet)
    assert (packet.to, packet.of, packet.ttl) == ("020000000110", GATEWAY_MAC, 63)
    assert str(packet.source) == SERVER[visit.family]
    assert str(packet.destination) == WEB[visit.family]
    place = 4 if kind == "ping" else 2
    assert struct.unpack_from("!H", packet.payload, place) == (5000,)
    assert_summed(packet)
    assert visit.node.seen() == {(10, 2): 1}, "the sender is the world"
    assert visit.node.counters()["unmasqueraded"] == 1


def test_conntrack_knows_the_flow_as_the_endpoint_does(visit: Visit) -> None:
    """Policy judges it by what the endpoint wants, and not by what is on the wire."""
    port = visit.hidden(udp(5000, 53)).ports[0]
    visit.back(udp(53, port))

    (row,) = visit.node.dataplane.dump("conntrack")
    assert (row["endpoint"], row["endpoint_port"]) == (WEB[visit.family], 5000)
    assert (row["peer"], row["peer_port"]) == (SERVER[visit.family], 53)
    assert (row["began"], row["state"], row["remote_identity"]) == ("endpoint", "established", 2)


@pytest.mark.parametrize("kind", CARRIED)
def test_a_flow_keeps_its_port(visit: Visit, kind: str) -> None:
    ports = {port_of(visit.hidden(payload(kind, visit.family)).payload, kind) for _ in range(5)}

    assert len(ports) == 1
    assert len(visit.rows()) == 2


def test_a_port_of_the_pool_is_left_as_it_is(visit: Visit) -> None:
    assert port_of(visit.hidden(udp(50123, 53)).payload, "udp") == 50123


def test_two_endpoints_with_one_port_get_two(visit: Visit) -> None:
    family = visit.family
    first = visit.hidden(udp(50123, 53)).ports[0]
    done = visit.send(DB[family], SERVER[family], udp(50123, 53))
    second = read(done.packet).ports[0]

    assert (first, second != first) == (50123, True)
    for port, to in ((first, WEB[family]), (second, DB[family])):
        answer = read(visit.back(udp(53, port)).packet)
        assert (str(answer.destination), answer.ports) == (to, (53, 50123))


def test_one_port_serves_flows_to_two_servers(visit: Visit) -> None:
    family = visit.family
    other = {4: "198.51.100.8", 6: "2001:db8:ffff::8"}[family]

    ports = [
        visit.hidden(udp(50123, 53)).ports[0],
        read(visit.send(WEB[family], other, udp(50123, 53)).packet).ports[0],
    ]

    assert ports == [50123, 50123]


def test_udp_without_a_checksum_stays_without(visit: Visit) -> None:
    """IPv4 alone allows it (RFC 768)."""
    if visit.family == 6:
        return
    sent = frame(ip(WEB[4], SERVER[4], udp(50123, 53)))

    assert read(visit.node.from_web(sent).packet).payload[6:8] == b"\0\0"


@pytest.mark.parametrize("kind", CARRIED)
def test_what_answers_nothing_is_the_nodes_own_and_untouched(visit: Visit, kind: str) -> None:
    source, to = SERVER[visit.family], NODE[visit.family]
    sent = frame(ip(source, to, reply(kind, visit.family, 50123)))

    done = visit.node.from_underlay(sent)

    assert (done.verdict, done.packet) == (NOT_OURS, sent)
    assert visit.node.drops() == {}


def test_an_answer_from_elsewhere_than_was_asked_is_the_nodes_own(visit: Visit) -> None:
    port = visit.hidden(udp(50123, 53)).ports[0]

    assert visit.back(udp(54, port)).verdict == NOT_OURS
    assert visit.back(tcp(53, port)).verdict == NOT_OURS


def test_an_answer_to_an_endpoint_that_is_gone_is_the_stacks_to_refuse(visit: Visit) -> None:
    port = visit.hidden(udp(50123, 53)).ports[0]
    visit.node.dataplane.detach_endpoint(visit.node.web)

    assert visit.back(udp(53, port)).verdict == NOT_OURS


def test_an_exempt_destination_sees_the_endpoint_itself(visit: Visit) -> None:
    source, to = WEB[visit.family], EXEMPTED[visit.family]
    sent = frame(ip(source, to, udp(50123, 53)))

    done = visit.node.from_web(sent)

    assert (done.verdict, done.packet) == (OK, sent)
    assert visit.rows() == []


def test_multicast_is_left_to_the_stack(visit: Visit) -> None:
    to = {4: "224.0.1.1", 6: "ff05::1"}[visit.family]

    assert visit.send(WEB[visit.family], to, udp(50123, 123)).verdict == OK
    assert visit.rows() == []


def test_who_was_called_from_the_world_answers_by_its_own_address(visit: Visit) -> None:
    """The caller knows the endpoint's address, by a route to it, and waits for that one."""
    family = visit.family
    call = frame(ip(SERVER[family], WEB[family], udp(50123, 80)))
    assert visit.node.send("to_endpoint", call, visit.node.web).verdict == OK

    done = visit.out(udp(80, 50123))

    assert done.verdict == OK
    assert str(read(done.packet).source) == WEB[family]


def test_another_interface_to_the_world_has_no_address_to_hide_behind(visit: Visit) -> None:
    run(f"ip route add {SERVER[visit.family]} dev db")

    assert visit.out(udp(50123, 53)).verdict == SHOT
    assert visit.node.drops() == {"NAT_NO_ADDRESS egress": 1}


@pytest.mark.parametrize(
    ("route", "why"), [("unreachable", "no way"), ("blackhole", "no way"), ("local", "the host")]
)
def test_what_the_host_would_not_forward_is_its_stacks(visit: Visit, route: str, why: str) -> None:
    device = " dev lo" if route == "local" else ""
    run(f"ip route add {route} {SERVER[visit.family]}{device}")

    assert visit.out(udp(50123, 53)).verdict == OK, why
    assert visit.rows() == []


def test_a_last_hop_and_a_packet_too_big_are_the_stacks_to_report(visit: Visit) -> None:
    run(f"ip route add {SERVER[visit.family]} via {ROUTER[visit.family]} mtu lock 1400")

    assert visit.out(udp(50123, 53), ttl=1).verdict == OK
    dont_fragment = {"fragment": 0x4000} if visit.family == 4 else {}
    assert visit.out(udp(50123, 53, bytes(1400)), **dont_fragment).verdict == OK
    assert visit.rows() == []
    if visit.family == 4:
        assert visit.out(udp(50123, 53, bytes(1400))).verdict == SHOT
        assert visit.node.drops() == {"PACKET_TOO_BIG egress": 1}


def test_what_has_no_ports_is_refused(visit: Visit) -> None:
    assert visit.out(Payload(47, bytes(20))).verdict == SHOT
    assert visit.out(echo(visit.family, 5000, answer=True)).verdict == SHOT

    assert visit.node.drops() == {"NAT_PROTOCOL egress": 2}


def test_the_rows_of_a_flow_are_shown_with_names(visit: Visit) -> None:
    visit.hidden(udp(50123, 53))
    family = visit.family

    rows = {row["local"]: row for row in visit.rows()}

    assert set(rows) == {WEB[family], NODE[family]}
    out = rows[WEB[family]]
    assert out.pop("expires_s") in range(117, 122)
    assert out == {
        "local": WEB[family],
        "local_port": 50123,
        "remote": SERVER[family],
        "remote_port": 53,
        "protocol": "udp",
        "translated": NODE[family],
        "translated_port": 50123,
        "state": "new",
    }
    assert ip_address(rows[NODE[family]]["translated"]) == ip_address(WEB[family])


@pytest.mark.parametrize("kind", CARRIED)
def test_a_flow_that_conntrack_forgot_stays_hidden_though_the_world_speaks_first(
    visit: Visit, kind: str
) -> None:
    port = port_of(visit.hidden(payload(kind, visit.family)).payload, kind)
    conntrack = visit.node.map("conntrack")
    conntrack.delete_many([key for key, _ in conntrack.items()])

    assert visit.back(reply(kind, visit.family, port)).verdict == REDIRECT

    assert port_of(visit.hidden(payload(kind, visit.family)).payload, kind) == port
