"""The entry of `meshnet agent`: begins small, and ends with a last line that says why."""

from __future__ import annotations

import asyncio

from meshnet.agent import lean
from meshnet.config import Paths, load
from meshnet.errors import MeshnetError


def run(paths: Paths, *, debug: bool) -> int:
    """Run this node's agent; returns the exit code. Raises MeshnetError, alone or in a group:
    the node lacks what it cannot run without."""
    lean.begin()
    import structlog

    from meshnet import log
    from meshnet.agent.loop import flatten
    from meshnet.agent.service import serve

    log.setup(debug=debug)
    settings = load(paths)
    try:
        asyncio.run(serve(paths, settings))
    except* MeshnetError as group:
        for error in flatten(group):
            structlog.get_logger().error("agent failed", node=settings.node, error=str(error))
        raise
    return 0
