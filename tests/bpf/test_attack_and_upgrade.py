"""Lies, odd packets, and changes of the dataplane, under real traffic between two nodes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.bpf import GATEWAY_MAC, run
from tests.support.packets import frame, ip, udp, vxlan
from tests.support.two_nodes import Pair, capture, inside, lost_pings, pinging, two_nodes

pytestmark = [pytest.mark.bpf, pytest.mark.netlink]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Pair]:
    with two_nodes(tmp_path / "bpf") as nodes:
        nodes.travel_over(4)
        yield nodes


def test_a_packet_in_outer_fragments_is_put_together_and_checked(fresh: Pair) -> None:
    """The tunnel device's MTU is 9000 and the wire's 1500, so the kernel fragments outside."""
    assert lost_pings(fresh.east.name, "10.2.0.10", size=4000) == 0, fresh.drops(fresh.east)

    counters = {row["counter"]: row["packets"] for row in fresh.dump(fresh.west, "counters")}
    assert counters["reassembled"] == 3


def test_a_fragmented_lie_is_refused_behind_the_kernels_device_too(fresh: Pair) -> None:
    fresh.dataplanes[fresh.west.name].update_nodes({}, [ip_address("192.0.2.1")])

    assert lost_pings(fresh.east.name, "10.2.0.10", size=4000, count=1) == 1
    assert fresh.drops(fresh.west) == ["UNKNOWN_OUTER_SOURCE ingress"]
    (event,) = fresh.dataplanes[fresh.west.name].read_events()
    assert event.file == "sender.h"


def test_the_vni_on_the_wire_is_the_senders_identity(fresh: Pair) -> None:
    with inside(fresh.west.name), capture("underlay") as wire:
        assert lost_pings(fresh.east.endpoint, "10.2.0.10", count=1) == 0
        vnis = {packet.vni for packet in wire.udp(8472) if packet.source == ip_address("192.0.2.1")}

    assert vnis == {fresh.east.identity}
    assert fresh.east.identity >> 16 == fresh.east.number


def test_an_endpoint_cannot_forge_a_tunnelled_packet(fresh: Pair) -> None:
    forged = vxlan(1 << 16 | 999, frame(ip("10.1.0.10", "10.2.0.10", udp(1, 2))))
    with inside(fresh.east.endpoint), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(forged, ("192.0.2.2", 8472))

    assert fresh.drops(fresh.east) == ["NESTED_ENCAPSULATION egress"]
    assert fresh.drops(fresh.west) == []


def test_an_endpoint_cannot_tag_its_way_into_a_vlan_of_the_underlay(fresh: Pair) -> None:
    plain = frame(ip("10.1.0.10", "10.2.0.10", udp(1, 2)), to=GATEWAY_MAC)
    tagged = plain[:12] + bytes.fromhex("81000005") + plain[12:]
    with inside(fresh.east.endpoint), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("eth0", 0))
        sender.send(tagged)

    assert fresh.drops(fresh.east) == ["UNSUPPORTED_L3 egress"]


def test_a_tunnel_inside_an_endpoint_is_dropped_and_says_so(fresh: Pair) -> None:
    """The kernel lets BPF not encapsulate what is encapsulated and has its checksum to come
    (EALREADY). Such a tunnel works once its device has tx checksum offload off."""
    inner = f"ip -n {fresh.east.endpoint}"
    run(f"{inner} link add own type vxlan id 5 remote 10.2.0.10 dstport 4789 dev eth0")
    run(f"{inner} link set own up")
    run(f"{inner} addr add 172.16.0.1/24 dev own")
    run(f"{inner} neigh add 172.16.0.2 lladdr 02:00:00:00:00:99 dev own")

    with inside(fresh.east.endpoint), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"checksum left to the device", ("172.16.0.2", 9))

    assert "ENCAPSULATION_FAILED egress" in fresh.drops(fresh.east)


def test_killing_and_restarting_the_agent_loses_no_packet(fresh: Pair) -> None:
    programs = fresh.pinned(fresh.east)
    with pinging(fresh.east.endpoint, "10.2.0.10", count=100, interval_s=0.01) as result:
        for _ in range(5):
            fresh.restart_agent(fresh.east)

    assert result.lost == 0, fresh.drops(fresh.east)
    assert fresh.pinned(fresh.east) == programs, "nothing was loaded again"


def test_new_programs_take_over_without_losing_a_packet(fresh: Pair) -> None:
    before = fresh.pinned(fresh.east)
    with pinging(fresh.east.endpoint, "10.2.0.10", count=100, interval_s=0.01) as result:
        for number in range(5):
            fresh.reconfigure(fresh.east, gateway_mac=f"02:00:00:00:00:{number + 10}")
        fresh.reconfigure(fresh.east)

    assert result.lost == 0, fresh.drops(fresh.east)
    assert fresh.pinned(fresh.east) == before, "the first generation again, and no other"
