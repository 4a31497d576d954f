"""How a global service's traffic is divided between clusters, and how it moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.logic.recovery import STEPS, Recovery
from meshnet.logic.shares import Health, Shares, approach, target
from meshnet.logic.slots import MOST_EACH, slots
from meshnet.model.addressing import parse_prefix
from meshnet.model.service import Affinity, BackendAddress, Protocol, Sharing


def health(**active: int) -> dict[str, Health]:
    """Of ten backends each."""
    return {name: Health(active=count, total=10) for name, count in active.items()}


def sharing(**options: object) -> Sharing:
    return Sharing(is_global=True, **options)  # type: ignore[arg-type]


def test_without_a_wish_every_backend_counts_the_same() -> None:
    assert target(sharing(), "east", health(east=9, west=3)) == {"east": 0.75, "west": 0.25}


@pytest.mark.parametrize(
    ("affinity", "healthy", "expected"),
    [
        (Affinity.LOCAL, {"east": 1, "west": 9}, {"east": 1.0}),
        (Affinity.LOCAL, {"east": 0, "west": 9}, {"west": 1.0}),
        (Affinity.REMOTE, {"east": 9, "west": 1}, {"west": 1.0}),
        (Affinity.REMOTE, {"east": 9, "west": 0}, {"east": 1.0}),
        (Affinity.NONE, {"east": 0, "west": 0}, {}),
    ],
)
def test_ciliums_affinity(affinity: Affinity, healthy: dict[str, int], expected: Shares) -> None:
    assert target(sharing(affinity=affinity), "east", health(**healthy)) == expected


def test_clusters_are_used_in_their_order() -> None:
    wish = sharing(preference=("north", "west"))
    assert target(wish, "east", health(east=9, west=9, north=9)) == {"north": 1.0}
    assert target(wish, "east", health(east=9, west=9, north=0)) == {"west": 1.0}
    assert target(wish, "east", health(east=9, west=0, north=0)) == {"east": 1.0}


def test_weights_divide_between_clusters_used_together() -> None:
    wish = sharing(weights={"east": 3, "west": 1, "north": 0})
    assert target(wish, "east", health(east=5, west=5, north=5)) == {"east": 0.75, "west": 0.25}


def test_below_the_minimum_a_cluster_spills_and_only_well_above_it_is_taken_back() -> None:
    wish = sharing(affinity=Affinity.LOCAL, min_healthy_percent=50)
    assert target(wish, "east", health(east=5, west=9)) == {"east": 1.0}
    assert target(wish, "east", health(east=4, west=9)) == {"west": 1.0}
    away = {"west": 1.0}
    assert target(wish, "east", health(east=5, west=9), away) == {"west": 1.0}
    assert target(wish, "east", health(east=6, west=9), away) == {"east": 1.0}


def test_where_nobody_is_above_the_minimum_who_answers_is_used() -> None:
    wish = sharing(affinity=Affinity.LOCAL, min_healthy_percent=90)
    assert target(wish, "east", health(east=1, west=2)) == {"east": 1.0}


def test_traffic_moves_no_faster_than_it_may() -> None:
    now, wanted = {"east": 1.0}, {"west": 1.0}
    usable = {"east", "west"}
    first = approach(now, wanted, 0.1, usable)
    assert first == pytest.approx({"east": 0.9, "west": 0.1})
    for _ in range(9):
        first = approach(first, wanted, 0.1, usable)
    assert first == pytest.approx(wanted)


def test_traffic_of_a_cluster_without_backends_moves_at_once() -> None:
    moved = approach({"east": 0.5, "west": 0.5}, {"west": 1.0}, 0.01, {"west"})
    assert moved == pytest.approx({"west": 1.0})


SHARES = st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 1), min_size=1).map(
    lambda parts: {name: part / sum(parts.values()) for name, part in parts.items()}
)


@given(SHARES, SHARES, st.floats(0.001, 1), st.sets(st.sampled_from("abcd")))
def test_shares_always_sum_to_one_and_arrive(
    now: Shares, wanted: Shares, step: float, more: set[str]
) -> None:
    usable = set(wanted) | more
    moved = approach(now, wanted, step, usable)
    assert sum(moved.values()) == pytest.approx(1)
    assert set(moved) <= usable
    assert approach(now, wanted, 1.0, usable) == pytest.approx(wanted)


WEIGHTS = st.dictionaries(st.integers(), st.integers(0, 1000), max_size=30)


@given(WEIGHTS)
def test_slots_follow_weights(weights: dict[int, int]) -> None:
    found = slots(weights)
    positive = {key: weight for key, weight in weights.items() if weight}
    assert set(found) == set(positive)
    assert len(found) <= (MOST_EACH + 1) * max(1, len(positive)) or len(set(positive.values())) > 1
    if len(set(positive.values())) == 1:
        assert len(found) == len(positive)


def test_small_weights_are_exact() -> None:
    assert sorted(slots({"a": 300, "b": 100})) == ["a", "a", "a", "b"]
    assert slots({"a": 0, "b": 0}) == ()


def test_who_comes_back_is_given_more_by_steps() -> None:
    one = BackendAddress(parse_prefix("10.0.0.1/32").network_address, 80, Protocol.TCP)
    recovery = Recovery(ramp_s=10)
    assert recovery.observe({one}, set(), 0) == {}, "it was never out"
    assert recovery.observe(set(), {one}, 1) == {}
    steps = [recovery.observe({one}, set(), now).get(one, STEPS) for now in (2, 3.5, 7, 11, 13)]
    assert steps == [1, 2, 6, STEPS, STEPS]
