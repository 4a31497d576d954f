"""What becomes of a packet that an endpoint sends."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.support.bpf import API, GATEWAY_MAC, OK, REDIRECT, WEB, Node
from tests.support.packets import ETH_ARP, Packet, frame, ip, read, tcp, udp

pytestmark = pytest.mark.bpf


@pytest.mark.parametrize("to", ["10.1.0.11", "fd00:10:1::11"])
def test_an_endpoint_reaches_another_of_its_node_one_hop_away(east: Node, to: str) -> None:
    source = "10.1.0.10" if "." in to else "fd00:10:1::10"

    done = east.from_web(frame(ip(source, to, udp(4000, 53), ttl=64)))

    assert done.verdict == REDIRECT
    packet = read(done.packet)
    assert (packet.to, packet.of) == ("020000000111", GATEWAY_MAC)
    assert packet.ttl == 63
    assert east.seen() == {(11, WEB): 1}
    assert east.drops() == {}


@pytest.mark.parametrize("own", ["10.1.0.10", "fd00:10:1::10"])
def test_a_packet_to_itself_comes_back(east: Node, own: str) -> None:
    """As when a service chooses the very endpoint that asks it."""
    done = east.from_web(frame(ip(own, own, udp(4000, 53))))

    assert done.verdict == REDIRECT, east.drops()
    assert read(done.packet).to == "020000000110"
    assert east.seen() == {(10, WEB): 1}


@pytest.mark.parametrize(
    ("to", "outer"),
    [
        ("10.2.0.10", "192.0.2.2"),
        ("fd00:10:2::10", "192.0.2.2"),
        ("10.2.0.11", "2001:db8::2"),
        ("fd00:10:2::11", "2001:db8::2"),
    ],
)
def test_a_packet_to_another_node_carries_the_senders_identity_as_vni(
    east: Node, to: str, outer: str
) -> None:
    source = "10.1.0.10" if "." in to else "fd00:10:1::10"
    sent = frame(ip(source, to, tcp(4000, 80, b"GET /")))

    done = east.from_web(sent)

    assert done.verdict == REDIRECT
    packet = read(done.packet)
    assert packet.source == ip_address("192.0.2.1" if "." in outer else "2001:db8::1")
    assert packet.destination == ip_address(outer)
    assert packet.ports[1] == 8472
    assert packet.ports[0] >= 0xC000
    assert packet.vni == WEB
    assert packet.inner.of == GATEWAY_MAC
    assert done.packet[-len(sent) + 14 :] == sent[14:], "the inner packet is untouched"
    assert east.counters() == {"encapsulated": 1}


@pytest.mark.parametrize(
    ("source", "to"), [("10.1.0.10", "10.2.0.10"), ("fd00:10:1::10", "fd00:10:2::10")]
)
def test_a_flow_has_one_outer_port_and_flows_are_spread_over_all_of_them(
    east: Node, source: str, to: str
) -> None:
    def outer(port: int) -> int:
        return read(east.from_web(frame(ip(source, to, udp(port, 53)))).packet).ports[0]

    ports = [outer(port) for port in range(4000, 4064)]

    assert ports == [outer(port) for port in range(4000, 4064)]
    assert len(set(ports)) > 48
    for bit in range(14):
        assert {port >> bit & 1 for port in ports} == {0, 1}, f"bit {bit}"


@pytest.mark.parametrize("to", ["10.1.0.1", "fd00:10:1::1", "192.0.2.1", "8.8.8.8", "224.0.0.22"])
def test_what_the_node_or_the_world_has_goes_to_the_stack(east: Node, to: str) -> None:
    source = "10.1.0.10" if "." in to else "fd00:10:1::10"
    sent = frame(ip(source, to, udp(4000, 53)))

    done = east.from_web(sent)

    assert (done.verdict, done.packet) == (OK, sent)
    assert east.drops() == {}


def test_arp_and_neighbour_discovery_go_to_the_stack(east: Node) -> None:
    arp = frame(Packet(ETH_ARP, bytes(28)))
    solicitation = frame(ip("fe80::1", "ff02::1:ff00:1", udp(0, 0)))
    unspecified = frame(ip("::", "ff02::16", udp(0, 0)))

    for sent in (arp, solicitation, unspecified):
        assert east.from_web(sent).verdict == OK
    assert east.drops() == {}


def test_a_later_fragment_is_tunnelled_like_the_first(east: Node) -> None:
    for flags_and_offset in (0x2000, 0x00B9):
        sent = frame(ip("10.1.0.10", "10.2.0.10", udp(1, 2, bytes(16)), fragment=flags_and_offset))
        assert read(east.from_web(sent).packet).vni == WEB


def test_the_destinations_identity_is_known_when_a_packet_is_dropped(east: Node) -> None:
    east.dataplane.update_nodes({}, [ip_address("192.0.2.2")])

    east.from_web(frame(ip("10.1.0.10", "10.2.0.10", udp(4000, 53))))

    event = east.one_event()
    assert (event.source_identity, event.destination_identity) == (WEB, API)
    assert (event.source, event.source_port) == (ip_address("10.1.0.10"), 4000)
    assert (event.destination, event.destination_port) == (ip_address("10.2.0.10"), 53)
