"""Two alternatives measured in turn, and how sure one may be of their ratio.

dataplane.md, Measuring: interleaved pairs in ABBA order, so that a machine that grows slower
or faster harms both alike; the interval is a bootstrap over the pairs.
"""

from __future__ import annotations

import enum
import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

RESAMPLES = 2000
MARGIN = 0.05
"""A result passes when the interval's lower end is no further than this below the bar."""


class Verdict(enum.StrEnum):
    PASS = "pass"
    FAIL = "fail"
    OPEN = "open"
    """More pairs would tell."""


@attrs.frozen(kw_only=True)
class Result:
    """One row of build/bench.json (design.md 10); a ratio above 1 is better for us."""

    name: str
    unit: str
    ours: float
    peer: float | None
    ratio: float | None
    low: float | None
    high: float | None
    runs: int
    setting: str

    def verdict(self, bar: float) -> Verdict:
        assert self.low is not None and self.high is not None, "only of what has a peer"
        if self.low >= bar - MARGIN:
            return Verdict.PASS
        return Verdict.FAIL if self.high < bar else Verdict.OPEN


def interleaved(
    ours: Callable[[], float], peer: Callable[[], float], pairs: int
) -> Iterator[tuple[float, float]]:
    """(ours, peer) of each pair: AB, BA, AB, ..."""
    for number in range(pairs):
        if number % 2:
            theirs = peer()
            yield ours(), theirs
        else:
            mine = ours()
            yield mine, peer()


def rounds(measures: Mapping[str, Callable[[], float]], times: int) -> Iterator[dict[str, float]]:
    """Each alternative once a round, in this order and in the opposite one in turn."""
    for number in range(times):
        names = sorted(measures, key=list(measures).index, reverse=bool(number % 2))
        yield {name: measures[name]() for name in names}


def compare(
    name: str, unit: str, setting: str, pairs: Sequence[tuple[float, float]], *, scale: float = 1.0
) -> Result:
    """`scale`: from what was measured to `unit`. More is better."""
    ratios = [mine / theirs for mine, theirs in pairs]
    low, high = interval(ratios)
    return Result(
        name=name,
        unit=unit,
        ours=statistics.median(mine for mine, _ in pairs) * scale,
        peer=statistics.median(theirs for _, theirs in pairs) * scale,
        ratio=geometric_mean(ratios),
        low=low,
        high=high,
        runs=len(pairs),
        setting=setting,
    )


def geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))


def interval(ratios: Sequence[float], *, seed: int = 1) -> tuple[float, float]:
    """The bootstrap's 95 % interval of the geometric mean."""
    rng = random.Random(seed)
    means = sorted(geometric_mean(rng.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return means[round(RESAMPLES * 0.025)], means[round(RESAMPLES * 0.975) - 1]
