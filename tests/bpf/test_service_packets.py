"""A service without a socket hook: to a backend and back, packet by packet."""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from meshnet.dataplane.kernel import KernelDataplane
from meshnet.dataplane.schema import Sizes
from meshnet.model.dataplane import PolicyKey
from meshnet.model.policy import Direction
from meshnet.model.ruling import PortRow, Verdict
from meshnet.model.service import Protocol
from tests.support.asking import BACK, CLIENT, DB, FRONT, OTHER, REMOTE, TOO, VIP, WEB, Asking
from tests.support.bpf import API, GATEWAY_MAC, OK, REDIRECT, SHOT, built, endpoint
from tests.support.bpf import DB as DB_IDENTITY
from tests.support.bpf import WEB as WEB_IDENTITY
from tests.support.packets import ACK, SYN, frame, ip, read, segment, summed, tcp, udp
from tests.support.pieces import fragments, whole
from tests.support.world import NODE, SERVER, Visit, assert_summed

pytestmark = pytest.mark.bpf

PAYLOADS = {"tcp": tcp(CLIENT, FRONT, b"GET"), "udp": udp(CLIENT, FRONT, b"ask")}
ANSWERS = {"tcp": segment(BACK, CLIENT, SYN | ACK), "udp": udp(BACK, CLIENT, b"answer")}
BOTH = pytest.mark.parametrize("kind", ["tcp", "udp"])


@BOTH
def test_a_packet_to_the_frontend_goes_to_a_backend(asking: Asking, kind: str) -> None:
    asking.serve(REMOTE[asking.family])

    packet = asking.asked(PAYLOADS[kind])

    assert str(packet.destination) == REMOTE[asking.family]
    assert packet.ports == (CLIENT, BACK)
    assert packet.payload[-3:] in (b"GET", b"ask")
    assert asking.node.counters()["service_asked"] == 1


@BOTH
def test_the_answer_comes_from_the_frontend(asking: Asking, kind: str) -> None:
    asking.serve(REMOTE[asking.family])
    asking.asked(PAYLOADS[kind])

    packet = asking.answered(ANSWERS[kind])

    assert (packet.to, packet.of, packet.ttl) == ("020000000110", GATEWAY_MAC, 63)
    assert str(packet.source) == VIP[asking.family]
    assert packet.ports == (FRONT, CLIENT)
    assert asking.node.counters()["service_answered"] == 1
    assert asking.node.seen() == {(10, API): 1}, "policy and people see the backend"


def test_udp_without_a_checksum_stays_without(asking: Asking) -> None:
    """IPv4 alone allows it (RFC 768)."""
    if asking.family == 6:
        return
    asking.serve(REMOTE[4])

    done = asking.send(udp(CLIENT, FRONT), check=False)

    assert read(done.packet).inner.payload[6:8] == b"\0\0"


def test_conntrack_and_policy_know_the_backend_and_not_the_frontend(asking: Asking) -> None:
    asking.serve(REMOTE[asking.family])
    asking.asked(udp(CLIENT, FRONT))
    asking.answered(udp(BACK, CLIENT))

    (row,) = asking.node.dataplane.dump("conntrack")
    assert (row["peer"], row["peer_port"]) == (REMOTE[asking.family], BACK)
    assert (row["endpoint_port"], row["remote_identity"]) == (CLIENT, API)
    assert (row["state"], row["by_service"]) == ("established", True)


def test_policy_is_asked_about_the_backend_and_its_port(asking: Asking) -> None:
    asking.serve(REMOTE[asking.family])
    here = asking.node.dataplane

    def allow(port: int) -> None:
        row = PortRow(64, 17, port, Verdict.ALLOW, 7)
        here.write_policy({9: [row]}, {PolicyKey(5, Direction.EGRESS, API): 9})
        here.update_endpoint(endpoint("web", 10, WEB_IDENTITY, policy_id=5, policy_epoch=port))

    allow(BACK)
    assert asking.send(udp(CLIENT, FRONT)).verdict == REDIRECT, asking.node.drops()
    here.remove_policy([PolicyKey(5, Direction.EGRESS, API)], [9])
    allow(FRONT)
    assert asking.send(udp(CLIENT + 1, FRONT)).verdict == SHOT
    assert asking.node.drops() == {"POLICY_DEFAULT_DENY egress": 1}
    event = asking.node.one_event()
    assert (str(event.destination), event.destination_identity) == (REMOTE[asking.family], API)


def test_a_backend_on_the_same_node(asking: Asking) -> None:
    family = asking.family
    asking.serve(DB[family])

    there = asking.send(udp(CLIENT, FRONT))
    assert there.verdict == REDIRECT, asking.node.drops()
    packet = read(there.packet)
    assert (str(packet.source), str(packet.destination)) == (WEB[family], DB[family])
    assert packet.ports == (CLIENT, BACK)
    assert_summed(packet)

    back = asking.send(udp(BACK, CLIENT), of=DB[family], to=WEB[family])
    packet = read(back.packet)
    assert (str(packet.source), packet.ports) == (VIP[family], (FRONT, CLIENT))
    assert_summed(packet)
    assert asking.node.seen() == {(11, WEB_IDENTITY): 1, (10, DB_IDENTITY): 1}


@BOTH
def test_an_endpoint_reaches_itself(asking: Asking, kind: str) -> None:
    """It sees the frontend at the other end, both as who asks and as who answers."""
    family = asking.family
    asking.serve(WEB[family])
    deny = PolicyKey(5, Direction.EGRESS, 0), PolicyKey(5, Direction.INGRESS, 0)
    asking.node.dataplane.write_policy({9: []}, dict.fromkeys(deny, 9))
    asking.node.dataplane.update_endpoint(endpoint("web", 10, WEB_IDENTITY, policy_id=5))

    there = asking.send(PAYLOADS[kind])
    assert there.verdict == REDIRECT, asking.node.drops()
    packet = read(there.packet)
    assert (packet.to, packet.of, packet.ttl) == ("020000000110", GATEWAY_MAC, 63)
    assert (str(packet.source), str(packet.destination)) == (VIP[family], WEB[family])
    assert packet.ports == (CLIENT, BACK)
    assert_summed(packet)

    back = asking.send(ANSWERS[kind])
    assert back.verdict == REDIRECT, asking.node.drops()
    packet = read(back.packet)
    assert (str(packet.source), str(packet.destination)) == (VIP[family], WEB[family])
    assert packet.ports == (FRONT, CLIENT)
    assert_summed(packet)
    assert asking.node.dataplane.dump("conntrack") == [], "no policy, so no flow to remember"


def test_a_backend_that_is_the_node_itself(asking: Asking) -> None:
    family = asking.family
    gateway = {4: "10.1.0.1", 6: "fd00:10:1::1"}[family]
    asking.serve(gateway)

    there = asking.send(udp(CLIENT, FRONT))
    assert there.verdict == OK
    assert (str(read(there.packet).destination), read(there.packet).ports[1]) == (gateway, BACK)

    reply = ip(gateway, WEB[family], summed(gateway, WEB[family], udp(BACK, CLIENT)))
    back = asking.node.send("to_endpoint", frame(reply), asking.node.web)
    assert back.verdict == OK, asking.node.drops()
    packet = read(back.packet)
    assert (str(packet.source), packet.ports) == (VIP[family], (FRONT, CLIENT))
    assert_summed(packet)


def test_a_backend_in_the_world_sees_this_node(visit: Visit) -> None:
    asking = Asking(visit.node, visit.family)
    server, node = SERVER[visit.family], NODE[visit.family]
    asking.serve(server)

    there = read(asking.send(udp(50123, FRONT)).packet)
    assert (str(there.source), str(there.destination)) == (node, server)
    assert there.ports == (50123, BACK)
    assert_summed(there)

    reply = ip(server, node, summed(server, node, udp(BACK, 50123)))
    back = visit.arrive(reply)
    assert back.verdict == REDIRECT, visit.node.drops()
    packet = read(back.packet)
    assert (str(packet.source), packet.ports) == (VIP[visit.family], (FRONT, 50123))
    assert_summed(packet)


def test_what_is_no_service_at_that_address_goes_on_as_it_is(visit: Visit) -> None:
    asking = Asking(visit.node, visit.family)
    asking.serve(REMOTE[visit.family], at=SERVER[visit.family])

    packet = visit.hidden(udp(50123, 81))

    assert packet.ports == (50123, 81)
    assert asking.rows() == []


def test_a_frontend_at_the_nodes_own_address_is_one_and_other_ports_are_the_nodes(
    asking: Asking,
) -> None:
    gateway = {4: "10.1.0.1", 6: "fd00:10:1::1"}[asking.family]
    asking.serve(REMOTE[asking.family], at=gateway)

    assert asking.asked(udp(CLIENT, FRONT), to=gateway).ports == (CLIENT, BACK)
    assert asking.send(udp(CLIENT, 53), to=gateway).verdict == OK


def test_hits_are_counted_once_a_flow(asking: Asking) -> None:
    family = asking.family
    asking.serve(REMOTE[family], REMOTE[family], REMOTE[family], OTHER[family])

    taken: Counter[str] = Counter()
    for port in range(6000, 6200):
        taken[str(asking.asked(udp(port, FRONT)).destination)] += 1
        asking.asked(udp(port, FRONT))

    assert 110 <= taken[REMOTE[family]] <= 185, "150 expected, 6 standard deviations"
    hits = asking.node.dataplane.backend_hits()
    counted = {str(at.address): n for at, n in hits.items() if at.protocol is Protocol.UDP}
    assert counted == dict(taken)


def test_fragments_follow_their_first_both_ways(asking: Asking) -> None:
    family = asking.family
    web, vip, remote = WEB[family], VIP[family], REMOTE[family]
    asking.serve(remote)
    data = bytes(range(200))

    sent = fragments(family, web, vip, summed(web, vip, udp(CLIENT, FRONT, data)))
    out = [asking.node.from_web(frame(packet)) for packet in sent]
    assert [done.verdict for done in out] == [REDIRECT, REDIRECT], asking.node.drops()
    packets = [read(done.packet).inner for done in out]
    assert {str(packet.destination) for packet in packets} == {remote}
    assert whole(packets, family) == summed(web, remote, udp(CLIENT, BACK, data)).data

    sent = fragments(family, remote, web, summed(remote, web, udp(BACK, CLIENT, data)))
    back = [asking.arrive(packet) for packet in sent]
    assert [done.verdict for done in back] == [REDIRECT, REDIRECT], asking.node.drops()
    packets = [read(done.packet) for done in back]
    assert {str(packet.source) for packet in packets} == {vip}
    assert whole(packets, family) == summed(vip, web, udp(FRONT, CLIENT, data)).data


def test_what_goes_to_endpoints_is_not_looked_at(asking: Asking) -> None:
    """Even where somebody gave their address to a service: packets between endpoints are free."""
    family = asking.family
    asking.serve(OTHER[family], at=REMOTE[family], port=FRONT)

    packet = asking.asked(udp(CLIENT, FRONT), to=REMOTE[family])

    assert str(packet.destination) == REMOTE[family]


def test_addresses_of_services_come_and_go_with_their_frontends(asking: Asking) -> None:
    addresses = asking.node.map("service_addresses")
    asking.serve(REMOTE[asking.family])
    asking.serve(REMOTE[asking.family], at=TOO[asking.family])
    assert len(list(addresses.items())) == 2
    addresses.update(bytes(15) + b"\x01", struct.pack("=I", 1))

    heir = KernelDataplane(asking.node.directory, built(), sizes=Sizes.lab())
    try:
        assert len(list(addresses.items())) == 2, "what nobody has is taken out at the start"
        heir.update_services({}, [at for at in heir.services() if at.protocol is Protocol.TCP])
        assert len(list(addresses.items())) == 2
        heir.update_services({}, heir.services())
        assert list(addresses.items()) == []
    finally:
        heir.close()


def test_rows_are_shown_with_named_fields(asking: Asking) -> None:
    family = asking.family
    asking.serve(REMOTE[family])
    asking.asked(udp(CLIENT, FRONT))

    rows = {row["server"]: row for row in asking.rows()}

    there = rows[VIP[family]]
    assert there.pop("expires_s") in range(117, 122)
    assert there.pop("backend_index")
    assert there == {
        "way": "there",
        "client": WEB[family],
        "client_port": CLIENT,
        "server": VIP[family],
        "server_port": FRONT,
        "protocol": "udp",
        "becomes_client": WEB[family],
        "becomes_client_port": CLIENT,
        "becomes_server": REMOTE[family],
        "becomes_server_port": BACK,
        "state": "new",
    }
    assert rows[REMOTE[family]]["becomes_server"] == VIP[family]
