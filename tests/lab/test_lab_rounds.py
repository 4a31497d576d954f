"""Nothing of a lab stays on the machine, however it ended. The long form:

python -m tests.support.rounds --rounds 50 --kills 10
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import rounds

pytestmark = pytest.mark.lab

ROUNDS, KILLS = 3, 4


def test_nothing_is_left_after_rounds_and_after_kills(tmp_path: Path) -> None:
    lab = rounds.prepare(tmp_path, alone=False)
    longest = max(lab.whole() for _ in range(ROUNDS))
    for moment in range(KILLS):
        lab.killed(longest * (moment + 0.5) / KILLS)


def test_what_is_left_is_found(tmp_path: Path) -> None:
    lab = rounds.prepare(tmp_path, alone=False)
    left = tmp_path / f"{lab.name}-left"
    left.mkdir()
    machine = rounds.Machine(rounds.Machine.now().things | {f"pin {left}"})
    assert machine.left_since(lab.before, lambda thing: lab.name in thing) == [f"pin {left}"]
