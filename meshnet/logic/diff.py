"""desired - actual = plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import attrs

K = TypeVar("K")
V = TypeVar("V")


@attrs.frozen
class Plan(Generic[K, V]):
    """What to write and what to remove so that `actual` becomes `desired`."""

    replace: dict[K, V]
    delete: tuple[K, ...]

    def __bool__(self) -> bool:
        return bool(self.replace or self.delete)


def plan(desired: Mapping[K, V], actual: Mapping[K, V]) -> Plan[K, V]:
    """The difference, least first. Applying it twice is applying it once."""
    return Plan(
        replace={key: value for key, value in desired.items() if actual.get(key) != value},
        delete=tuple(key for key in actual if key not in desired),
    )
