"""What becomes of a packet that arrives from another node."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from meshnet.logic import tunnel_probe
from tests.support.bpf import API, GATEWAY_MAC, NOT_OURS, OK, REDIRECT, SHOT, Node, node
from tests.support.packets import frame, ip, read, tcp, udp, vxlan, vxlan_frame

pytestmark = pytest.mark.bpf


@pytest.mark.parametrize("outer", ["192.0.2.2", "2001:db8::2"])
@pytest.mark.parametrize("source", ["10.2.0.10", "fd00:10:2::10"])
def test_a_true_packet_is_unpacked_into_the_endpoint(east: Node, outer: str, source: str) -> None:
    to, ours = (
        "10.1.0.10" if "." in source else "fd00:10:1::10",
        "192.0.2.1" if "." in outer else "2001:db8::1",
    )
    payload = tcp(4000, 80, b"GET / HTTP/1.1")
    inner = frame(ip(source, to, payload, ttl=64))

    done = east.from_underlay(vxlan_frame(outer, ours, vni=API, inner=inner))

    assert done.verdict == REDIRECT
    packet = read(done.packet)
    assert (packet.to, packet.of) == ("020000000110", GATEWAY_MAC)
    assert (packet.source, packet.destination) == (ip_address(source), ip_address(to))
    assert (packet.ttl, packet.payload) == (63, payload.data)
    assert east.seen() == {(10, API): 1}
    assert east.counters() == {"decapsulated": 1, "delivered": 1}


@pytest.mark.parametrize("to", ["10.1.0.1", "fd00:10:1::1"])
def test_what_is_for_the_node_itself_goes_to_its_stack_unpacked(east: Node, to: str) -> None:
    source = "10.2.0.10" if "." in to else "fd00:10:2::10"
    inner = frame(ip(source, to, udp(1, 2)))

    done = east.from_underlay(vxlan_frame("192.0.2.2", "192.0.2.1", vni=API, inner=inner))

    assert done.verdict == OK
    assert done.packet[14:] == inner[14:]


def test_remote_node_may_speak_from_its_own_address(east: Node) -> None:
    inner = frame(ip("10.2.0.1", "10.1.0.10", udp(1, 2)))

    done = east.from_underlay(vxlan_frame("192.0.2.2", "192.0.2.1", vni=6, inner=inner))

    assert done.verdict == REDIRECT
    assert east.seen() == {(10, 6): 1}


def test_a_prefix_that_does_not_fit_the_nodes_row_counts_as_well(east: Node) -> None:
    many = tuple(ip_network(f"10.2.{number}.0/24") for number in range(7))
    rows = [node("192.0.2.2", 2, pod_cidrs=many), node("2001:db8::2", 2, pod_cidrs=many)]
    east.dataplane.update_nodes({row.address: row for row in rows}, ())
    inner = frame(ip("10.2.6.9", "10.1.0.10", udp(1, 2)))

    for outer, ours in (("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")):
        done = east.from_underlay(vxlan_frame(outer, ours, vni=API, inner=inner))
        assert done.verdict == REDIRECT, east.drops()


@pytest.mark.parametrize(
    "sent",
    [
        frame(ip("192.0.2.2", "192.0.2.1", udp(50000, 53))),
        frame(ip("192.0.2.2", "192.0.2.9", udp(50000, 8472, vxlan(API, bytes(60))))),
        frame(ip("192.0.2.2", "192.0.2.1", tcp(50000, 8472))),
        frame(ip("192.0.2.2", "192.0.2.1", udp(1, 8472, bytes(60)), fragment=0x2000)),
        frame(ip("192.0.2.2", "192.0.2.1", udp(1, 8472, bytes(60)), fragment=0x0001)),
        frame(ip("192.0.2.2", "192.0.2.1", udp(1, 8472, bytes(60)), options=bytes([1] * 4))),
        frame(ip("2001:db8::2", "2001:db8::9", udp(50000, 8472, bytes(60)))),
    ],
    ids=["dns", "other host", "tcp", "first fragment", "later fragment", "options", "other host 6"],
)
def test_what_is_not_our_tunnels_passes_untouched(east: Node, sent: bytes) -> None:
    done = east.from_underlay(sent)

    assert (done.verdict, done.packet) == (NOT_OURS, sent)
    assert east.drops() == {}


@pytest.mark.parametrize("protocol", ["vxlan", "geneve"])
@pytest.mark.parametrize("source", ["192.0.2.2", "203.0.113.9", "2001:db8::2"])
def test_a_joins_question_is_taken_away_and_is_no_drop(
    east: Node, source: str, protocol: str
) -> None:
    """Whoever asks is no node yet, so it does not matter who it is."""
    version, ours = (4, "192.0.2.1") if "." in source else (6, "2001:db8::1")
    size = 1400
    data = tunnel_probe.payload(protocol, bytes(16), 0, size, version)
    question = frame(ip(source, ours, udp(50000, tunnel_probe.PORTS[protocol], data)))
    assert len(question) == size + 14

    assert east.from_underlay(question).verdict == SHOT

    assert east.drops() == {}
    assert east.counters() == {"questions": 1}


def test_a_question_with_a_number_is_no_question(east: Node) -> None:
    """Else whoever knows the form could hide what it sends."""
    data = bytearray(tunnel_probe.payload("vxlan", bytes(16), 0, 300, 4))
    data[6] = 1

    done = east.from_underlay(frame(ip("192.0.2.2", "192.0.2.1", udp(50000, 8472, bytes(data)))))

    assert done.verdict == SHOT
    assert east.drops() == {"UNSUPPORTED_L3 ingress": 1}
    assert east.counters() == {}
