"""How a benchmark's pairs become a ratio, an interval and a verdict."""

from __future__ import annotations

import random

import pytest

from topology.bench.ratio import Result, Verdict, compare, interleaved, interval, rounds


def test_runs_are_in_abba_order() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    pairs = list(interleaved(lambda: run("ours"), lambda: run("peer"), 4))

    assert order == ["ours", "peer", "peer", "ours", "ours", "peer", "peer", "ours"]
    assert pairs == [(1, 2), (4, 3), (5, 6), (8, 7)], "ours comes first in each"


def test_many_alternatives_take_turns_in_both_directions() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    taken = list(rounds({name: lambda name=name: run(name) for name in "abc"}, 2))  # type: ignore[misc]

    assert order == ["a", "b", "c", "c", "b", "a"]
    assert taken == [{"a": 1, "b": 2, "c": 3}, {"c": 4, "b": 5, "a": 6}]


def test_a_machine_that_slows_down_does_not_move_the_ratio() -> None:
    speed = iter(range(1000, 900, -1))
    pairs = list(interleaved(lambda: 2.0 * next(speed), lambda: float(next(speed)), 20))

    found = compare("stream", "1/s", "here", pairs)

    assert found.ratio == pytest.approx(2.0, rel=1e-3)
    assert found.runs == 20


def test_units_are_scaled_and_the_ratio_is_not() -> None:
    found = compare("stream", "Gbit/s", "here", [(2.5e9, 1.25e9)] * 3, scale=8e-9)

    assert (found.ours, found.peer, found.ratio) == (20.0, 10.0, pytest.approx(2.0))


def test_the_interval_holds_the_truth_and_narrows_with_more_pairs() -> None:
    rng = random.Random(5)
    ratios = [1.1 * rng.lognormvariate(0, 0.1) for _ in range(200)]

    few, many = interval(ratios[:10]), interval(ratios)

    assert few[0] < 1.1 < few[1] and many[0] < 1.1 < many[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert interval(ratios) == many, "the same pairs give the same interval"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.96, 1.2, Verdict.PASS),
        (0.95, 0.99, Verdict.PASS),
        (0.90, 0.99, Verdict.FAIL),
        (0.90, 1.10, Verdict.OPEN),
    ],
)
def test_a_verdict_needs_an_interval_that_tells(low: float, high: float, verdict: Verdict) -> None:
    row = Result(
        name="x", unit="1/s", ours=1, peer=1, ratio=1, low=low, high=high, runs=20, setting=""
    )
    assert row.verdict(1.0) is verdict
