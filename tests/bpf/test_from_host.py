"""What the node's own stack sends: to its endpoints, and through the tunnel device."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from meshnet.model.dataplane import IpcacheRow
from tests.support.bpf import API, NOT_OURS, OK, SHOT, Node
from tests.support.packets import ETH_ARP, RECORD_ROUTE, TCP, Packet, Payload, frame, ip, udp

pytestmark = pytest.mark.bpf


def to_web(east: Node, source: str) -> int:
    to = "10.1.0.10" if "." in source else "fd00:10:1::10"
    return east.send("to_endpoint", frame(ip(source, to, udp(1, 2))), east.web).verdict


@pytest.mark.parametrize(
    ("source", "identity"),
    [
        ("10.1.0.1", 1),
        ("fd00:10:1::1", 1),
        ("fe80::6d:65ff:fe73:6801", 1),
        ("192.0.2.1", 1),
        ("10.2.0.10", API),
        ("10.2.0.1", 6),
        ("8.8.8.8", 2),
        ("172.16.5.5", 77),
    ],
)
def test_an_endpoint_sees_who_spoke_through_the_hosts_stack(
    east: Node, source: str, identity: int
) -> None:
    prefix = IpcacheRow(identity=77, node=None)
    east.dataplane.update_ipcache({ip_network("172.16.0.0/12"): prefix}, ())

    assert to_web(east, source) == OK
    assert east.seen() == {(10, identity): 1}
    assert east.drops() == {}


def test_arp_of_the_host_passes(east: Node) -> None:
    arp = frame(Packet(ETH_ARP, bytes(28)))

    assert east.send("to_endpoint", arp, east.web).verdict == OK
    assert east.seen() == {}


def test_an_interface_that_is_no_endpoints_gets_nothing(east: Node) -> None:
    done = east.send("to_endpoint", frame(ip("10.1.0.1", "10.1.0.10", udp(1, 2))), east.underlay)

    assert done.verdict == SHOT
    assert east.drops() == {"UNKNOWN_ENDPOINT ingress": 1}


@pytest.mark.parametrize(
    ("source", "destination"),
    [("10.1.0.1", "10.2.0.10"), ("10.1.0.1", "10.2.0.11"), ("fd00:10:1::1", "fd00:10:2::10")],
)
def test_the_node_itself_goes_by_the_kernels_tunnel(
    east: Node, source: str, destination: str
) -> None:
    sent = frame(ip(source, destination, udp(1, 2)))

    done = east.send("to_tunnel", sent, east.tunnel)

    assert (done.verdict, done.packet) == (OK, sent)


def test_the_tunnel_devices_own_multicast_is_left_to_it(east: Node) -> None:
    sent = frame(ip("fe80::1", "ff02::16", udp(1, 2)))

    assert east.send("to_tunnel", sent, east.tunnel).verdict == NOT_OURS
    assert east.drops() == {}


UNREADABLE = {
    "IPV4_OPTION": lambda source: ip(source, "10.1.0.10", udp(1, 2), options=RECORD_ROUTE),
    "L4_TRUNCATED": lambda source: ip(
        source, "10.1.0.10", Payload(TCP, bytes(16)), fragment=0x2000
    ),
    "BAD_FRAGMENT": lambda source: ip(source, "10.1.0.10", Payload(TCP, bytes(24)), fragment=1),
}
"""What the host's stack would forward, and no policy could be asked about."""


@pytest.mark.parametrize("reason", UNREADABLE)
def test_what_the_host_forwards_cannot_pass_policy_by_being_unreadable(
    east: Node, reason: str
) -> None:
    packet = frame(UNREADABLE[reason]("8.8.8.8"))

    assert east.send("to_endpoint", packet, east.web).verdict == SHOT
    assert east.drops() == {f"{reason} ingress": 1}


@pytest.mark.parametrize("reason", UNREADABLE)
def test_what_the_host_itself_says_is_not_refused_for_it(east: Node, reason: str) -> None:
    packet = frame(UNREADABLE[reason]("10.1.0.1"))

    assert east.send("to_endpoint", packet, east.web).verdict == OK
    assert east.drops() == {}
