"""Tells of refused keys once, and only of those that last.

An address may come a moment before its node, on another watch: that is no problem of the
remote's, so a refusal counts when it has lasted a while.
"""

from __future__ import annotations

from collections.abc import Mapping

LASTING_S = 2.0


class LastingRefusals:
    """Time is a parameter: seconds on a clock that never goes back."""

    def __init__(self, *, lasting_s: float = LASTING_S) -> None:
        self._lasting_s = lasting_s
        self._since: dict[str, tuple[str, float]] = {}
        self._told: dict[str, str] = {}

    def update(self, refusals: Mapping[str, str], now: float) -> tuple[dict[str, str], list[str]]:
        """(key -> reason of all that last, those of the keys not told of yet)."""
        before = self._since
        self._since = {
            key: before[key] if key in before and before[key][0] == reason else (reason, now)
            for key, reason in refusals.items()
        }
        lasting = {
            key: reason
            for key, (reason, since) in sorted(self._since.items())
            if now - since >= self._lasting_s
        }
        fresh = [key for key, reason in lasting.items() if self._told.get(key) != reason]
        self._told = lasting
        return lasting, fresh
