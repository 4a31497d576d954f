"""Weights to slots: as few as say the same, to within a small error."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import gcd
from typing import TypeVar

T = TypeVar("T", bound=Hashable)

MOST_EACH = 20
"""Slots a backend has on average at most, where weights have no small common measure."""


def slots(weights: Mapping[T, float]) -> tuple[T, ...]:
    """Each key as often as its weight says; keys of weight 0 not at all, all others at least
    once. Equal weights give one slot each, whatever they are."""
    positive = {key: weight for key, weight in weights.items() if weight > 0}
    if not positive:
        return ()
    counts = _exact(positive) or _rounded(positive)
    return tuple(key for key, count in counts.items() for _ in range(count))


def _exact(weights: Mapping[T, float]) -> dict[T, int] | None:
    """By the greatest common divisor, where weights are whole and the result is small."""
    if len(set(weights.values())) == 1:
        return dict.fromkeys(weights, 1)
    if any(weight != int(weight) for weight in weights.values()):
        return None
    whole = {key: int(weight) for key, weight in weights.items()}
    common = gcd(*whole.values())
    if sum(whole.values()) // common > MOST_EACH * len(whole):
        return None
    return {key: weight // common for key, weight in whole.items()}


def _rounded(weights: Mapping[T, float]) -> dict[T, int]:
    total, room = sum(weights.values()), MOST_EACH * len(weights)
    return {key: max(1, round(room * weight / total)) for key, weight in weights.items()}
