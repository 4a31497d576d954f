"""Ports of a class as rows: ranges cut into prefixes, verdicts by precedence, rules named."""

from __future__ import annotations

import sys
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.logic.port_rows import (
    Defaults,
    Entry,
    Ruling,
    covers,
    decide,
    port_rows,
    prefixes,
    ruling_of,
)
from meshnet.model.policy import LAST_PORT, TCP, UDP, PortRange
from meshnet.model.ruling import PortRow, Verdict

DENIED = Defaults(deny=True)


@given(st.integers(0, LAST_PORT), st.integers(0, LAST_PORT))
def test_blocks_cover_a_range_exactly_and_are_few(one: int, other: int) -> None:
    first, last = sorted((one, other))
    at = first
    blocks = list(prefixes(first, last))
    for port, bits in blocks:
        assert port == at and port % (1 << (16 - bits)) == 0
        at += 1 << (16 - bits)
    assert at == last + 1
    assert len(blocks) <= 30


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (80, 80, [(80, 16)]),
        (80, 83, [(80, 14)]),
        (0, LAST_PORT, [(0, 0)]),
        (1, 2, [(1, 16), (2, 16)]),
    ],
)
def test_blocks_of_known_ranges(first: int, last: int, expected: list[tuple[int, int]]) -> None:
    assert list(prefixes(first, last)) == expected


def tcp(first: int, last: int) -> tuple[PortRange, ...]:
    return (PortRange(TCP, first, last),)


def test_nothing_allowed_needs_no_row_and_everything_allowed_one() -> None:
    assert port_rows([], DENIED) == ()
    assert port_rows([Entry(7, None)], DENIED) == (PortRow(32, 0, 0, Verdict.ALLOW, 7),)
    assert port_rows([Entry(7, tcp(0, LAST_PORT))], DENIED) == (
        PortRow(40, TCP, 0, Verdict.ALLOW, 7),
    )


def test_deny_wins_over_what_is_more_specific() -> None:
    rows = port_rows([Entry(1, tcp(80, 80), specific=True), Entry(2, None, deny=True)], DENIED)
    assert ruling_of(rows, TCP, 80) == Ruling(Verdict.DENY, 2)
    rows = port_rows([Entry(1, None), Entry(2, tcp(80, 90), deny=True)], Defaults())
    assert ruling_of(rows, TCP, 85) == Ruling(Verdict.DENY, 2)
    assert ruling_of(rows, TCP, 91) == ruling_of(rows, UDP, 85) == Ruling(Verdict.ALLOW, 1)


def test_the_rule_that_is_named_is_the_narrower_one_then_the_one_with_a_peer() -> None:
    wide, narrow = Entry(1, None), Entry(2, tcp(80, 80))
    assert ruling_of(port_rows([wide, narrow], DENIED), TCP, 80).rule == 2
    anybody, somebody = Entry(1, tcp(80, 80)), Entry(2, tcp(80, 80), specific=True)
    assert ruling_of(port_rows([anybody, somebody], DENIED), TCP, 80).rule == 2


def test_audit_changes_nothing_of_what_passes_and_says_what_would_change() -> None:
    audited = Defaults(audit_deny=True)
    rows = port_rows([Entry(1, tcp(80, 80), audit=True)], audited)
    assert ruling_of(rows, TCP, 80) == Ruling(Verdict.ALLOW, 1)
    assert ruling_of(rows, TCP, 81) == Ruling(Verdict.AUDIT)
    # another policy in force denies: the audited allow opens nothing
    both = port_rows([Entry(1, tcp(80, 80), audit=True)], Defaults(deny=True, audit_deny=True))
    assert ruling_of(both, TCP, 80) == Ruling(Verdict.DENY)
    denied = port_rows([Entry(1, None), Entry(2, tcp(80, 80), deny=True, audit=True)], DENIED)
    assert ruling_of(denied, TCP, 80) == Ruling(Verdict.AUDIT, 2)


PORTS = st.integers(0, 40) | st.sampled_from([LAST_PORT - 1, LAST_PORT])
RANGES = st.builds(
    lambda protocol, ends: PortRange(protocol, *sorted(ends)),
    st.sampled_from([TCP, UDP]),
    st.tuples(PORTS, PORTS),
)
ORIGINS = st.sampled_from(["", "west"])
ENTRIES = st.builds(
    Entry,
    rule=st.integers(1, 4),
    ports=st.none() | st.lists(RANGES, max_size=4).map(tuple),
    deny=st.booleans(),
    audit=st.booleans(),
    specific=st.booleans(),
    origin=ORIGINS,
)
WESTERN = st.builds(Defaults, deny=st.booleans(), audit_deny=st.booleans())
DEFAULTS = st.builds(
    Defaults,
    deny=st.booleans(),
    audit_deny=st.booleans(),
    others=st.just(()) | WESTERN.map(lambda each: (("west", each),)),
)


@given(st.lists(ENTRIES, max_size=8), DEFAULTS)
def test_the_rows_say_of_every_port_what_the_entries_that_cover_it_say(
    entries: list[Entry], defaults: Defaults
) -> None:
    rows = port_rows(entries, defaults)
    for protocol in (TCP, UDP):
        for port in (*range(43), LAST_PORT - 2, LAST_PORT - 1, LAST_PORT):
            covering = [entry for entry in entries if covers(entry, protocol, port)]
            assert ruling_of(rows, protocol, port) == decide(covering, defaults)


def calls(entries: list[Entry]) -> int:
    """Python functions that are called for the rows of a class."""
    count = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        port_rows(entries, DENIED)
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("shape", ["one rule", "a rule each", "ranges in ranges"])
def test_twice_the_ports_are_twice_the_work(shape: str) -> None:
    def entries(number: int) -> list[Entry]:
        match shape:
            case "one rule":
                return [Entry(1, tuple(p for n in range(number) for p in tcp(3 * n, 3 * n)))]
            case "a rule each":
                return [Entry(1 + n, tcp(3 * n, 3 * n)) for n in range(number)]
            case _:
                return [Entry(1 + n, tcp(n, LAST_PORT - n)) for n in range(number)]

    assert calls(entries(800)) < 2.5 * calls(entries(400))
