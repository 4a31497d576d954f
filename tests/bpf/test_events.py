"""Every drop is counted; a sample of them comes as events, and what is left out is known."""

from __future__ import annotations

import select

import attrs
import pytest

from meshnet.dataplane.abi import EventLimit
from meshnet.dataplane.kernel import KernelDataplane
from meshnet.dataplane.schema import Sizes
from tests.support.bpf import Node, built, config, fill
from tests.support.packets import frame, ip, udp

pytestmark = pytest.mark.bpf

SPOOFED = frame(ip("10.1.0.11", "10.2.0.10", udp(4000, 53)))
UNKNOWN = frame(ip("10.1.0.10", "10.2.0.99", udp(4000, 53)))


def refuse(east: Node, packets: int, sent: bytes = SPOOFED) -> None:
    for _ in range(packets):
        east.from_web(sent)


def test_the_descriptor_is_readable_when_there_is_an_event(east: Node) -> None:
    poll = select.poll()
    poll.register(east.dataplane.events_fd(), select.POLLIN)
    assert poll.poll(0) == []

    refuse(east, 1)
    assert poll.poll(1000) != []

    assert len(east.dataplane.read_events()) == 1
    assert poll.poll(0) == []


def test_a_flood_of_drops_is_counted_in_full_and_sampled(east: Node) -> None:
    refuse(east, 1000)

    events = east.dataplane.read_events()
    suppressed = east.counters()["events_suppressed"]
    assert east.drops() == {"INVALID_SOURCE egress": 1000}
    assert EventLimit.BURST <= len(events) < 1000
    assert len(events) + suppressed == 1000


def test_a_flood_for_one_reason_does_not_hide_another(east: Node) -> None:
    refuse(east, 500)
    refuse(east, 1, UNKNOWN)

    assert "UNKNOWN_DESTINATION" in {event.reason for event in east.dataplane.read_events()}


def test_events_that_do_not_fit_the_ring_are_counted_as_lost(fresh: Node) -> None:
    fresh.dataplane.unload()
    small = attrs.evolve(Sizes.lab(), events_bytes=4096)
    fresh.dataplane = KernelDataplane(fresh.directory, built(), sizes=small)
    fresh.dataplane.configure(config())
    fill(fresh.dataplane)

    refuse(fresh, 90)

    assert len(fresh.dataplane.read_events()) == 4096 // 136
    assert fresh.counters()["events_lost"] == 90 - 4096 // 136


def test_the_ring_goes_round_many_times(fresh: Node) -> None:
    fresh.dataplane.unload()
    small = attrs.evolve(Sizes.lab(), events_bytes=4096)
    fresh.dataplane = KernelDataplane(fresh.directory, built(), sizes=small)
    fresh.dataplane.configure(config())
    fill(fresh.dataplane)

    seen = 0
    for port in range(95):
        fresh.from_web(frame(ip("10.1.0.11", "10.2.0.10", udp(port, 53))))
        events = fresh.dataplane.read_events()
        assert [event.source_port for event in events] == [port]
        seen += len(events)
    assert seen == 95


def test_an_event_says_when_how_long_and_where(east: Node) -> None:
    refuse(east, 1)

    event = east.one_event()
    assert event.ifindex == east.web
    assert event.length == len(SPOOFED)
    assert event.time_ns > 0
    assert (event.protocol, event.destination_port) == (17, 53)
    assert event.file == "from_endpoint.c"
