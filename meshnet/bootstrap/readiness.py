"""Start this node's agent and see it become ready, or hear why it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from meshnet.bootstrap.agent_process import AgentProcess
from meshnet.errors import MeshnetError, Timeout

TIMEOUT_S = 60.0
INTERVAL_S = 0.1

Missing = Callable[[], str]
"""Asks the agent's local API; what it still lacks, in words, or nothing. It may block."""


async def start(agent: AgentProcess, missing: Missing, *, timeout_s: float = TIMEOUT_S) -> None:
    """Returns when the agent is ready.

    Raises:
        MeshnetError: it ended, with its last words.
        Timeout: it runs, and lacks something still.
    """
    await asyncio.to_thread(agent.start)
    deadline = time.monotonic() + timeout_s
    while lack := await asyncio.to_thread(missing):
        if failure := await asyncio.to_thread(agent.failure):
            raise MeshnetError(f"the agent did not start: {failure}")
        if time.monotonic() > deadline:
            raise Timeout(f"the agent is not ready after {timeout_s:.0f} s: {lack}")
        await asyncio.sleep(INTERVAL_S)
