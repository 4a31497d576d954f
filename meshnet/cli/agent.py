"""`meshnet agent`: the one command that is the agent, and not a caller of it.

It runs for months in little memory, so nothing of the command line is imported here.
"""

from __future__ import annotations

from meshnet.config import Paths


def run_agent(*, debug: bool) -> int:
    """Serve until told to stop; returns the exit code."""
    from meshnet.agent.main import run

    return run(Paths.from_environment(), debug=debug)
