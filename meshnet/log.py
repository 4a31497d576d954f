"""Logging set-up, and the one list of log keys.

The event is a constant phrase, values are keywords. Keys in use: `node`, `cluster`,
`endpoint`, `identity`, `prefix`, `key`, `revision`, `reconciler`, `error`, `path`, `peer`.
*info*: the world changed. *warning*: we will retry. *error*: an operator must act.
Packets are never logged: they are counted, and drops are sampled as events.
"""

from __future__ import annotations

import os
import sys

import structlog


def setup(*, debug: bool = False) -> None:
    """Log to stderr: JSON where systemd's journal reads it, key=value otherwise."""
    render: structlog.types.Processor
    if "JOURNAL_STREAM" in os.environ:
        render = structlog.processors.JSONRenderer()
    else:
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(10 if debug else 20),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
