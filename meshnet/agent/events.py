"""The newest drop events, drained from the dataplane's ring buffer.

A full ring loses the newest records, so "the newest" is what this bounded deque has: it is
drained often enough that the ring never fills at the rate the token buckets allow.
"""

from __future__ import annotations

import asyncio
from collections import deque

from meshnet.dataplane.api import Dataplane
from meshnet.model.dataplane import DropEvent

KEPT = 4096
DRAIN_INTERVAL_S = 0.02
"""The ring is written without wake-ups, which cost more than the record."""
IDLE_INTERVAL_S = 0.25


class DropEvents:
    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        self._newest: deque[DropEvent] = deque(maxlen=KEPT)

    def newest(self) -> list[DropEvent]:
        """Oldest first."""
        self._newest.extend(self._dataplane.read_events())
        return list(self._newest)

    async def run(self) -> None:
        """Never returns. Drains fast while there is something to drain."""
        while True:
            events = self._dataplane.read_events()
            self._newest.extend(events)
            await asyncio.sleep(DRAIN_INTERVAL_S if events else IDLE_INTERVAL_S)
