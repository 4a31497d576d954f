"""The search for a path's MTU, against paths that are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.logic.path_mtu import (
    FAN,
    FLOOR,
    PathSearch,
    overhead,
    verification,
)
from meshnet.model.dataplane import Mode

Path = Callable[[int], bool]


def search(ceiling: int, carries: Path, *hints: int) -> tuple[int | None, int, int]:
    """(found, rounds, packets); not found: nothing was answered."""
    state, packets = PathSearch(ceiling=ceiling), 0
    for rounds in range(1, 10):
        asked = state.sizes(hints)
        assert asked and all(FLOOR <= size <= ceiling for size in asked)
        assert all(state.carried < size < state.refused for size in asked)
        packets += len(asked)
        state = state.narrow(asked, [size for size in asked if carries(size)])
        if state.found or not state.carried:
            return state.found, rounds, packets
    raise AssertionError("the search does not end")


@given(ceiling=st.integers(FLOOR, 65535), data=st.data())
def test_every_path_is_found_to_the_byte(ceiling: int, data: st.DataObject) -> None:
    mtu = data.draw(st.integers(FLOOR, ceiling))
    hint = data.draw(st.integers(0, 70000))

    found, rounds, _ = search(ceiling, lambda size: size <= mtu, hint)

    assert found == mtu
    assert rounds <= 5


@pytest.mark.parametrize(
    ("ceiling", "mtu", "rounds"),
    [(1500, 1500, 1), (1500, 1400, 2), (1500, 1281, 3), (9000, 9000, 1), (9000, 1500, 4)],
)
def test_usual_paths_take_few_rounds(ceiling: int, mtu: int, rounds: int) -> None:
    found, took, packets = search(ceiling, lambda size: size <= mtu)

    assert (found, took) == (mtu, rounds)
    assert packets <= FAN * rounds


def test_a_hint_that_is_right_saves_a_round_but_one_byte() -> None:
    assert search(9000, lambda size: size <= 4321, 4321, 4322) == (4321, 1, 11)


def test_a_peer_that_does_not_answer_has_no_path_mtu() -> None:
    assert search(1500, lambda size: False)[0] is None


@given(st.integers(FLOOR, 1500), st.sets(st.integers(FLOOR, 1500)))
def test_lost_probes_make_it_smaller_never_larger(mtu: int, lost: set[int]) -> None:
    found, _, _ = search(1500, lambda size: size <= mtu and size not in lost)

    assert found is None or found <= mtu


def test_a_late_answer_beats_an_earlier_silence() -> None:
    state = PathSearch(ceiling=1500).narrow((1280, 1400), [1280])
    assert state.refused == 1400

    assert state.narrow((1390,), [1450]).carried == 1450


def test_a_known_path_is_verified_by_three_packets() -> None:
    assert verification(1400, 1500) == (1400, 1401, 1500)
    assert verification(1500, 1500) == (1500,)


def test_overhead_is_that_of_the_outer_headers() -> None:
    assert (overhead(4, Mode.VXLAN), overhead(6, Mode.GENEVE)) == (50, 70)
    assert overhead(4, Mode.NATIVE) == 0
