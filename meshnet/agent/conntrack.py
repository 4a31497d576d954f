"""Flows that are over make room, and the number of those that live is known."""

from __future__ import annotations

import asyncio

import structlog

from meshnet.dataplane.api import Dataplane

SWEEP_S = 30.0
"""The shortest lifetime but a closed connection's is twice this: at most a third of a busy
table is rows that are over."""


class ConntrackSweeper:
    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane

    async def reconcile(self) -> float:
        """In a thread: a full table takes 0.1 s, and packets and the API do not wait."""
        gone = await asyncio.to_thread(self._dataplane.sweep_conntrack)
        if gone:
            structlog.get_logger().debug("conntrack swept", flows=gone)
        return SWEEP_S
