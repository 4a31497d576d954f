"""The reconcile loop: fire at once, coalesce while an apply runs, retry with backoff.

A reconciler looks at state, never at events: a trigger only says "look again". Nothing is
lost when triggers come faster than applies, and a full pass every `resync_s` repairs
whatever was changed behind our back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import attrs
import structlog

from meshnet.errors import MeshnetError

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 10.0

Reconcile = Callable[[], Awaitable[float | None]]
"""One full pass, safe to run at any time and any number of times. It may answer the
seconds after which time alone will have changed what it wants."""


@attrs.define
class LoopStatus:
    """A loop's health as data, for `meshnet status`."""

    passes: int = 0
    failures: int = 0
    """In a row."""
    error: str | None = None
    last_success: float | None = None
    """time.monotonic()."""


class Loop:
    """Runs one reconciler for ever."""

    def __init__(self, name: str, reconcile: Reconcile, *, resync_s: float = 60.0) -> None:
        self.name = name
        self.status = LoopStatus()
        self._reconcile = reconcile
        self._resync_s = resync_s
        self._triggered = asyncio.Event()
        self._log = structlog.get_logger(reconciler=name)

    def trigger(self) -> None:
        """Something changed: look again, as soon as the running pass is over."""
        self._triggered.set()

    async def run(self) -> None:
        """Never returns. A MeshnetError is retried; a programming error ends the agent."""
        self._triggered.set()
        wait_s: float | None = None
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    await self._triggered.wait()
            except TimeoutError:
                pass
            self._triggered.clear()
            wait_s = await self._one_pass()

    async def _one_pass(self) -> float:
        self.status.passes += 1
        try:
            again_s = await self._reconcile()
        except MeshnetError as error:
            return self._failed([error])
        except BaseExceptionGroup as group:
            refusals, others = group.split(MeshnetError)
            if refusals is None or others is not None:
                raise
            return self._failed(flatten(refusals))
        self.status.failures = 0
        self.status.error = None
        self.status.last_success = time.monotonic()
        return self._resync_s if again_s is None else min(again_s, self._resync_s)

    def _failed(self, errors: list[MeshnetError]) -> float:
        self.status.failures += 1
        self.status.error = "; ".join(str(error) for error in errors)
        doublings = min(self.status.failures - 1, 16)
        backoff: float = min(FIRST_RETRY_S * 2**doublings, LONGEST_RETRY_S)
        self._log.warning("pass failed", error=self.status.error, retry_s=round(backoff, 1))
        return backoff * random.uniform(0.5, 1.0)


def flatten(group: BaseExceptionGroup[MeshnetError]) -> list[MeshnetError]:
    """The leaves of an exception group, in order."""
    leaves: list[MeshnetError] = []
    for error in group.exceptions:
        leaves += flatten(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
