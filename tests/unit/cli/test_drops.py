"""`meshnet drops`: counters with what they mean, and single packets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.agent_api import FakeAgent
from tests.unit.cli.conftest import Meshnet


def event(**changes: Any) -> dict[str, Any]:
    return {
        "time": "2026-11-22T20:00:00+00:00",
        "reason": "INVALID_SOURCE",
        "direction": "egress",
        "source": "10.1.0.11",
        "source_port": 4000,
        "source_identity": 65836,
        "destination": "10.2.0.10",
        "destination_port": 53,
        "destination_identity": 0,
        "protocol": "udp",
        "length": 47,
        "file": "from_endpoint.c",
        "line": 48,
        "ifindex": 7,
        "rule": "",
        "verdict": "DROPPED",
        **changes,
    }


def test_a_reason_is_printed_with_what_it_means(agent: FakeAgent, meshnet: Meshnet) -> None:
    counted = {"direction": "egress", "packets": 2, "bytes": 99}
    agent.drops = [
        {"reason": "INVALID_SOURCE", "text": "the source address is not the sender's own"} | counted
    ]
    assert meshnet("drops").out.splitlines()[1].split(None, 4) == [
        *("INVALID_SOURCE", "egress", "2", "99"),
        "the source address is not the sender's own",
    ]


def test_the_newest_packets_have_both_identities_and_the_line_that_refused(
    agent: FakeAgent, meshnet: Meshnet
) -> None:
    agent.drop_events = [
        event(reason="NOT_OURS"),
        event(),
        event(source="fd00:10:1::11", destination="fd00:10:2::10"),
        event(protocol="icmp"),
    ]
    header, *lines = meshnet("drops", "--last", "3").out.splitlines()

    assert header.split() == [
        *("TIME", "REASON", "DIRECTION", "SOURCE", "IDENTITY", "DESTINATION", "IDENTITY"),
        *("PROTOCOL", "BYTES", "AT", "RULE"),
    ]
    assert lines[0].split() == [
        *("2026-11-22T20:00:00+00:00", "INVALID_SOURCE", "egress", "10.1.0.11:4000", "65836"),
        *("10.2.0.10:53", "0", "udp", "47", "from_endpoint.c:48", "-"),
    ]
    assert lines[1].split()[3:6] == ["[fd00:10:1::11]:4000", "65836", "[fd00:10:2::10]:53"]
    assert lines[2].split()[3:6] == ["10.1.0.11", "65836", "10.2.0.10"]


def test_packets_in_json_are_the_agents_answer(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.drop_events = [event(), event(protocol="tcp")]
    assert meshnet("drops", "--last", "1", "-o", "json").json == agent.drop_events[1:]


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_number_that_is_none_is_refused(number: str, agent: FakeAgent, meshnet: Meshnet) -> None:
    outcome = meshnet("drops", "--last", number)

    assert outcome.code == 2
    assert "--last" in outcome.err
