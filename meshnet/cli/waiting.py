"""`--wait`: ask again until the answer is good, the time is up, or waiting cannot help."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from meshnet.cli import console
from meshnet.errors import AgentUnreachable, Timeout

T = TypeVar("T")

INTERVAL_S = 0.2
TELL_EVERY_S = 5.0


def wait_for(ask: Callable[[], T], missing: Callable[[T], str], *, timeout_s: float) -> T:
    """Ask until nothing is missing any more, and return that answer.

    An agent that does not answer (yet) is waited for too; progress goes to stderr.

    Args:
        missing: what the answer still lacks, in words; empty when it is good.

    Raises:
        Timeout: with what was missing last.
        MeshnetError: a refusal that waiting cannot change.
    """
    started = time.monotonic()
    told = started
    while True:
        try:
            answer = ask()
            reason = missing(answer)
            if not reason:
                return answer
        except AgentUnreachable as error:
            reason = str(error)
        now = time.monotonic()
        if now - started >= timeout_s:
            raise Timeout(f"not ready after {timeout_s:g} s: {reason}")
        if now - told >= TELL_EVERY_S:
            console.progress(f"waiting ({now - started:.0f} s): {reason}")
            told = now
        time.sleep(INTERVAL_S)
