"""Keeps the agent's process small: it lives for months beside the workloads it serves.

Libraries import on the chance that somebody uses all they can do. What the agent does not
use is kept out here, by name, with what it would cost; `make test` holds the total to its
budget (tests/lab/test_agent_budget.py, docs/reference/measurements.md).
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import sys

ABSENT = ("rich",)
"""structlog looks for it to colour tracebacks: 4 MB."""

BARE = ("pyroute2", "etcd3", "unittest")
"""Their `__init__` imports every module they have: 9 MB (with SQLite) and 1 MB. Bare, they
are packages whose modules are imported by those who use them."""

M_ARENA_MAX = -8
"""mallopt(3)."""


def begin() -> None:
    """Before anything else of the agent is imported."""
    for name in ABSENT:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None: no such module
    for name in BARE:
        spec = importlib.util.find_spec(name) if name not in sys.modules else None
        if spec is not None:
            sys.modules[name] = importlib.util.module_from_spec(spec)
    # One arena for every thread: gRPC's each touch one of their own for a few kilobytes.
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def settle() -> None:
    """After the start, whose garbage would stay for ever: give its pages back."""
    gc.collect()
    gc.freeze()  # what is there now stays: a collection need not look at it again
    ctypes.CDLL(None).malloc_trim(0)
