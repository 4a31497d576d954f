"""Runs of numbers, taken and given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.dataplane.ranges import Ranges


@given(st.lists(st.integers(1, 12), max_size=40))
def test_no_number_is_given_twice_and_all_come_back(lengths: list[int]) -> None:
    ranges, held = Ranges(64), []
    for length in lengths:
        start = ranges.take(length)
        if start is None:
            assert held, "an empty array has room for any of these"
            ranges.free(*held.pop(0))
            continue
        run = range(start, start + length)
        assert run.stop <= 64
        assert all(set(run).isdisjoint(range(s, s + n)) for s, n in held)
        held.append((start, length))
    for start, length in held:
        ranges.free(start, length)
    assert ranges.take(64) == 0


def test_what_was_freed_last_is_given_last() -> None:
    ranges = Ranges(4)
    first = ranges.take(1)
    assert first == 0
    ranges.free(0, 1)
    assert [ranges.take(1) for _ in range(4)] == [1, 2, 3, 0]


def test_nothing_is_nowhere() -> None:
    assert Ranges(4).take(0) == 0


def test_a_run_that_is_used_cannot_be_claimed() -> None:
    ranges = Ranges(8)
    ranges.claim(2, 3)
    for start, length in ((2, 1), (4, 1), (0, 3), (7, 2)):
        with pytest.raises(ValueError, match="is not free"):
            ranges.claim(start, length)
    assert ranges.take(4) is None
