"""A question that was asked before anything was changed, and its answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from meshnet.errors import Refused

LONGEST = 500
"""Characters of a text that another cluster may show us."""


@attrs.frozen
class Fault:
    """What is wrong, and what an operator does about it."""

    evidence: str
    fix: str = ""


@attrs.frozen(kw_only=True)
class Check:
    """One line of a plan."""

    check: str
    ok: bool
    evidence: str
    """What was seen: a passed check says it too."""
    fix: str = ""

    @classmethod
    def of(cls, check: str, faults: Iterator[Fault], fine: str) -> Check:
        """Failed by the first fault there is, else fine."""
        fault = next(faults, None)
        if fault is None:
            return cls(check=check, ok=True, evidence=fine)
        return cls(check=check, ok=False, evidence=fault.evidence, fix=fault.fix)

    @classmethod
    def failed(cls, check: str, text: str, *, fix: str = "") -> Check:
        """From the one line of an error, whose last part says what to do."""
        evidence, separator, rest = text.rpartition(": ")
        if fix or not separator:
            return cls(check=check, ok=False, evidence=text, fix=fix)
        return cls(check=check, ok=False, evidence=evidence, fix=rest)

    @property
    def text(self) -> str:
        """As the one line of an error."""
        return f"{self.evidence}: {self.fix}" if self.fix else self.evidence

    def foreign(self) -> Check:
        """Itself as another cluster may say it: printable, one line, not endless."""
        return Check(
            check=_plain(self.check),
            ok=self.ok,
            evidence=_plain(self.evidence),
            fix=_plain(self.fix),
        )


def demand(checks: Iterable[Check]) -> None:
    """Raises Refused with the first check that failed."""
    for check in checks:
        if not check.ok:
            raise Refused(check.text)


def clean(checks: Iterable[Check]) -> bool:
    return all(check.ok for check in checks)


def merged(ours: Iterable[Check], theirs: Iterable[Check]) -> tuple[Check, ...]:
    """One line a name: ours, unless they found a fault in it."""
    found = {check.check: check for check in ours}
    for check in theirs:
        if not check.ok:
            found[check.check] = check.foreign()
    return tuple(found.values())


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:LONGEST])
