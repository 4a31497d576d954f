"""A backend that comes back is given its clients gradually, not all at once."""

from __future__ import annotations

from collections.abc import Set

import attrs

from meshnet.model.service import BackendAddress

STEPS = 10
"""A full weight, in the steps by which it is reached."""


@attrs.define
class Recovery:
    """Remembers who was out. Times are of one monotonic clock, in seconds."""

    ramp_s: float = 10.0
    """From the first client to its full share."""
    _out: set[BackendAddress] = attrs.field(factory=set)
    _back_since: dict[BackendAddress, float] = attrs.field(factory=dict)

    def observe(
        self, active: Set[BackendAddress], out: Set[BackendAddress], now: float
    ) -> dict[BackendAddress, int]:
        """Steps (1..STEPS-1) of those on their way back; all other active ones have STEPS.

        A backend that was never out begins in full: nobody waited for it.
        """
        for backend in self._out & active:
            self._back_since[backend] = now
        self._out = set(out)
        steps = {}
        for backend, since in list(self._back_since.items()):
            step = 1 + int((now - since) / self.ramp_s * STEPS)
            if backend not in active or step >= STEPS:
                del self._back_since[backend]
            else:
                steps[backend] = step
        return steps
