"""Reading a document field by field, so that every fault is told at once with its path.

A Reader is one value and the path that leads to it. Whatever is wrong is noted in the list
that all Readers of a document share, and reading goes on with a harmless stand-in; who
began asks at the end whether there are faults, and then uses nothing of what was read.
Fields that nobody asked for are faults too: what is not enforced may not look enforced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import attrs

from meshnet.errors import ConfigError
from meshnet.model.addressing import Prefix, parse_prefix

T = TypeVar("T")


@attrs.frozen
class Fault:
    path: str
    """`spec.ingress[0].ports[1].port`; empty for the document itself."""
    message: str
    value: Any = None

    def __str__(self) -> str:
        shown = repr(self.value)
        value = "" if self.value is None else f", not {shown[:60]}"
        return f"{self.path or 'document'}: {self.message}{value}"


@attrs.frozen
class Reader:
    value: Any
    path: str
    faults: list[Fault]

    def fault(self, message: str, *, show: bool = True) -> None:
        self.faults.append(Fault(self.path, message, self.value if show else None))

    def fields(self) -> Fields:
        """The value as an object. Close it when every known field was taken."""
        if isinstance(self.value, dict) and all(isinstance(key, str) for key in self.value):
            return Fields(self, dict(self.value))
        self.fault("must be an object")
        return Fields(self, {})

    def items(self, *, most: int | None = None) -> Iterator[Reader]:
        """The value as a list; null counts as an empty one, as in Kubernetes."""
        if self.value is None:
            return
        if not isinstance(self.value, list):
            self.fault("must be a list")
            return
        if most is not None and len(self.value) > most:
            self.fault(f"has {len(self.value)} items: {most} at most", show=False)
        for place, item in enumerate(self.value):
            yield Reader(item, f"{self.path}[{place}]", self.faults)

    def text(self, pattern: re.Pattern[str] | None = None, rule: str = "") -> str:
        if not isinstance(self.value, str):
            self.fault("must be a string")
            return ""
        if pattern is not None and not pattern.fullmatch(self.value):
            self.fault(rule)
        return self.value

    def integer(self, first: int, last: int) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.fault("must be a whole number")
            return first
        if not first <= self.value <= last:
            self.fault(f"must be {first} to {last}")
            return first
        return self.value

    def truth(self) -> bool:
        if not isinstance(self.value, bool):
            self.fault("must be true or false")
            return False
        return self.value

    def choice(self, choices: dict[str, T], default: T) -> T:
        if isinstance(self.value, str) and self.value in choices:
            return choices[self.value]
        self.fault(f"must be one of {', '.join(choices)}")
        return default

    def prefix(self) -> Prefix | None:
        """A CIDR. Set host bits are a fault: they hide a typing mistake."""
        try:
            return parse_prefix(self.text())
        except ConfigError as error:
            self.fault(str(error), show=False)
            return None

    def checked(self, check: Callable[[str], str]) -> str:
        """Text that a rule of `model.names` accepts."""
        try:
            return check(self.text())
        except ConfigError as error:
            self.fault(str(error), show=False)
            return ""


class Fields:
    """The fields of one object, each taken once."""

    def __init__(self, reader: Reader, left: dict[str, Any]) -> None:
        self.reader = reader
        self._left = left

    def take(self, name: str) -> Reader | None:
        """The field, or None where there is none."""
        if name not in self._left:
            return None
        path = f"{self.reader.path}.{name}" if self.reader.path else name
        return Reader(self._left.pop(name), path, self.reader.faults)

    def require(self, name: str) -> Reader | None:
        found = self.take(name)
        if found is None and isinstance(self.reader.value, dict):
            self.reader.fault(f"field {name!r} is missing", show=False)
        return found

    def refuse(self, reasons: dict[str, str]) -> None:
        """Fields we know and do not enforce, each with what to do instead."""
        for name, reason in reasons.items():
            found = self.take(name)
            if found is not None:
                found.fault(f"is not enforced by meshnet, so it is refused: {reason}", show=False)

    def ignore(self, *names: str) -> None:
        """What means nothing to anybody but its author."""
        for name in names:
            self._left.pop(name, None)

    def close(self) -> None:
        for name in list(self._left):
            found = self.take(name)
            if found is not None:
                found.fault("unknown field", show=False)
