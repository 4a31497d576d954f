"""Policy in the kernel: whom it finds, what it lets through, and when it asks again."""

from __future__ import annotations

import struct
from ipaddress import ip_network

import attrs
import pytest

from meshnet.model.dataplane import IpcacheRow, PolicyKey
from meshnet.model.policy import Direction
from meshnet.model.ruling import PortRow, Verdict
from tests.support.bpf import API, DB, OK, REDIRECT, SHOT, WEB, Node, endpoint
from tests.support.packets import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Payload,
    frame,
    ip,
    tcp,
    udp,
    vxlan_frame,
)

pytestmark = pytest.mark.bpf

POLICY, CLASS, OTHER = 5, 9, 10
SCTP = 132
HERE = {4: "10.1.0.10", 6: "fd00:10:1::10"}
NEIGHBOUR = {4: "10.1.0.11", 6: "fd00:10:1::11"}
THERE = {4: "10.2.0.10", 6: "fd00:10:2::10"}
WORLD = {4: "8.8.8.8", 6: "2001:4860::8888"}
both = pytest.mark.parametrize("family", [4, 6])
INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS


def allow(protocol: int, port: int, bits: int = 16, *, verdict: Verdict = Verdict.ALLOW,
          rule: int = 1) -> PortRow:  # fmt: skip
    return PortRow(48 + bits if bits else 40, protocol, port, verdict, rule)


EVERYTHING = PortRow(32, 0, 0, Verdict.ALLOW, 2)


@attrs.define
class Policed:
    """web of east-1 with one policy: this class for one remote, that one for everybody else."""

    east: Node
    family: int
    epoch: int = 0

    def rule(self, direction: Direction, remote: int, *rows: PortRow, audit: bool = False) -> None:
        """Nobody but `remote` may do anything, in this direction; all is free in the other."""
        self.east.dataplane.remove_policy(list(self.east.dataplane.policy()), (CLASS,))
        other = EGRESS if direction is INGRESS else INGRESS
        keys = {
            PolicyKey(POLICY, direction, 0): OTHER,
            PolicyKey(POLICY, direction, remote): CLASS,
            PolicyKey(POLICY, other, 0): 1,
        }
        self.east.dataplane.write_policy({CLASS: rows}, keys)
        self.epoch += 1
        row = endpoint("web", 10, WEB, policy_id=POLICY, policy_epoch=self.epoch, audit=audit)
        self.east.dataplane.update_endpoint(row)

    def out(self, payload: Payload, to: dict[int, str] = THERE) -> int:
        sent = frame(ip(HERE[self.family], to[self.family], payload))
        return self.east.from_web(sent).verdict

    def back(self, payload: Payload) -> int:
        inner = frame(ip(THERE[self.family], HERE[self.family], payload))
        sent = vxlan_frame("192.0.2.2", "192.0.2.1", vni=API, inner=inner)
        return self.east.from_underlay(sent).verdict

    def from_host(self, payload: Payload) -> int:
        source = {4: "10.1.0.1", 6: "fd00:10:1::1"}[self.family]
        sent = frame(ip(source, HERE[self.family], payload))
        return self.east.send("to_endpoint", sent, self.east.web).verdict


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def web(east: Node, request: pytest.FixtureRequest) -> Policed:
    return Policed(east, request.param)


def sctp(source: int, destination: int) -> Payload:
    return Payload(SCTP, struct.pack("!HHII", source, destination, 0, 0) + bytes(16))


def echo(family: int, kind: int) -> Payload:
    return Payload(ICMP if family == 4 else ICMPV6, struct.pack("!BBHHH", kind, 0, 0, 77, 1))


def test_without_a_policy_everything_passes(web: Policed) -> None:
    assert (web.out(tcp(4000, 80)), web.back(udp(5000, 99))) == (REDIRECT, REDIRECT)


def test_ports_and_protocols_are_told_apart_on_the_way_out(web: Policed) -> None:
    web.rule(EGRESS, API, allow(TCP, 80), allow(UDP, 1024, 6), allow(SCTP, 80))

    assert web.out(tcp(4000, 80)) == REDIRECT
    assert web.out(tcp(4000, 81)) == SHOT
    assert web.out(udp(4000, 80)) == SHOT
    assert [web.out(udp(4000, port)) for port in (1023, 1024, 2047, 2048)] == [2, 7, 7, 2]
    assert (web.out(sctp(4000, 80)), web.out(sctp(4000, 81))) == (REDIRECT, SHOT)
    assert web.out(tcp(4000, 80), NEIGHBOUR) == SHOT, "another identity"
    assert web.east.drops() == {"POLICY_DEFAULT_DENY egress": 6}


def test_ports_and_protocols_are_told_apart_on_the_way_in(web: Policed) -> None:
    web.rule(INGRESS, API, allow(TCP, 80), allow(SCTP, 80))

    assert (web.back(tcp(4000, 80)), web.back(tcp(4000, 81))) == (REDIRECT, SHOT)
    assert (web.back(sctp(4000, 80)), web.back(sctp(4000, 81))) == (REDIRECT, SHOT)
    assert web.from_host(tcp(4000, 80)) == SHOT, "the host is another identity"
    assert web.east.drops() == {"POLICY_DEFAULT_DENY ingress": 3}


def test_the_hosts_own_stack_is_identity_host(web: Policed) -> None:
    web.rule(INGRESS, 1, allow(TCP, 80))

    assert (web.from_host(tcp(4000, 80)), web.back(tcp(4000, 80))) == (OK, SHOT)


def test_icmp_types_are_ports(web: Policed) -> None:
    request, reply = (8, 0) if web.family == 4 else (128, 129)
    protocol = ICMP if web.family == 4 else ICMPV6
    web.rule(EGRESS, API, allow(protocol, request))

    assert web.out(echo(web.family, request)) == REDIRECT
    assert web.back(echo(web.family, reply)) == REDIRECT
    assert web.out(echo(web.family, 13)) == SHOT
    web.rule(INGRESS, API, allow(protocol, 13))
    assert web.back(echo(web.family, request)) == SHOT


def test_replies_pass_though_nothing_allows_their_direction(web: Policed) -> None:
    web.rule(INGRESS, API)

    assert web.back(udp(53, 4000)) == SHOT
    assert web.out(udp(4000, 53)) == REDIRECT
    assert web.back(udp(53, 4000)) == REDIRECT


def test_a_flow_obeys_a_revoked_rule_with_its_next_packet(web: Policed) -> None:
    web.rule(EGRESS, API, allow(UDP, 53))
    assert (web.out(udp(4000, 53)), web.back(udp(53, 4000))) == (REDIRECT, REDIRECT)
    web.rule(EGRESS, API, allow(UDP, 54))
    assert (web.out(udp(4000, 53)), web.back(udp(53, 4000))) == (SHOT, SHOT)
    web.rule(EGRESS, API, allow(UDP, 53))
    assert web.out(udp(4000, 53)) == REDIRECT


def test_a_rule_is_named_in_the_event_and_the_default_is_no_rule(web: Policed) -> None:
    web.rule(EGRESS, API, EVERYTHING, allow(UDP, 53, verdict=Verdict.DENY, rule=44))

    assert (web.out(udp(4000, 53)), web.out(udp(4000, 54))) == (SHOT, REDIRECT)
    event = web.east.one_event()
    assert (event.reason, event.rule, event.verdict) == ("POLICY_DENIED", 44, "DROPPED")
    assert (event.source_identity, event.destination_identity) == (WEB, API)
    assert web.out(tcp(4000, 53), NEIGHBOUR) == SHOT
    event = web.east.one_event()
    assert (event.reason, event.rule) == ("POLICY_DEFAULT_DENY", 0)
    assert event.destination_identity == DB


@pytest.mark.parametrize("by", ["policy", "endpoint"])
def test_audit_lets_through_and_tells(web: Policed, by: str) -> None:
    audited = allow(UDP, 53, verdict=Verdict.AUDIT, rule=44)
    denied = allow(UDP, 53, verdict=Verdict.DENY, rule=44)
    for direction, send in ((EGRESS, web.out), (INGRESS, web.back)):
        if by == "policy":
            web.rule(direction, API, EVERYTHING, audited)
        else:
            web.rule(direction, API, EVERYTHING, denied, audit=True)
        assert (send(udp(4000, 53)), send(udp(4000, 54))) == (REDIRECT, REDIRECT)
        event = web.east.one_event()
        assert (event.verdict, event.reason, event.rule) == ("AUDIT", "POLICY_DENIED", 44)
        assert event.direction == direction.value
    assert web.east.drops() == {}
    assert web.east.counters()["audited"] == 2


@both
def test_both_endpoints_of_a_node_are_asked(east: Node, family: int) -> None:
    web = Policed(east, family)
    web.rule(EGRESS, DB, allow(UDP, 53))
    assert web.out(udp(4000, 53), NEIGHBOUR) == REDIRECT
    keys = {PolicyKey(6, direction, 0): 11 for direction in Direction}
    east.dataplane.write_policy({}, keys)
    east.dataplane.update_endpoint(endpoint("db", 11, DB, policy_id=6, policy_epoch=1))
    assert web.out(udp(4001, 53), NEIGHBOUR) == SHOT
    assert east.drops() == {"POLICY_DEFAULT_DENY ingress": 1}


def test_a_prefix_of_the_world_is_a_remote_and_never_hides_the_mesh(web: Policed) -> None:
    number = 1 << 24 | 3
    block = {4: "8.0.0.0/8", 6: "2001:4860::/32"}[web.family]
    mesh = {4: "10.0.0.0/8", 6: "fd00::/8"}[web.family]
    rows = {ip_network(b): IpcacheRow(identity=number, node=None) for b in (block, mesh)}
    web.east.dataplane.update_ipcache(rows, ())
    web.rule(EGRESS, number, EVERYTHING)
    elsewhere = {4: "9.9.9.9", 6: "2001:db9::1"}
    nobody = {4: "10.2.0.77", 6: "fd00:10:2::77"}

    assert web.out(udp(4000, 53), WORLD) != SHOT
    assert web.east.drops() == {}
    assert web.out(udp(4000, 53), elsewhere) == SHOT
    assert web.out(udp(4000, 53)) == SHOT, "an identity covers it"
    assert web.east.drops() == {"POLICY_DEFAULT_DENY egress": 2}
    assert web.out(udp(4000, 53), nobody) == SHOT
    assert web.east.drops()["UNKNOWN_DESTINATION egress"] == 1


def test_a_policy_without_rows_denies(web: Policed) -> None:
    row = endpoint("web", 10, WEB, policy_id=77, policy_epoch=1)
    web.east.dataplane.update_endpoint(row)

    assert (web.out(udp(4000, 53)), web.back(udp(4000, 53))) == (SHOT, SHOT)


def test_dumps_have_named_fields(web: Policed) -> None:
    web.rule(EGRESS, API, allow(UDP, 1024, 6))
    wanted = {"policy_id": POLICY, "direction": "egress", "remote": API, "class": CLASS}
    assert wanted in web.east.dataplane.dump("policy")
    assert web.east.dataplane.dump("policy_classes") == [
        {"class": CLASS, "protocol": "udp", "ports": "1024-2047", "verdict": "allow", "rule": 1}
    ]
