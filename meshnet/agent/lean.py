"""Keeps the agent's process small: it lives for months beside the workloads it serves.

Libraries import on the chance that somebody uses all they can do. What the agent does not
use is kept out here, by name, with what it would cost. What only the start needed is given
back. The total is held to its budget by tests/lab/test_agent_budget.py; figures:
docs/reference/measurements.md.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib.util
import sys
from pathlib import Path

ABSENT = ("rich",)
"""structlog looks for it to colour tracebacks: 4 MB."""

BARE = ("pyroute2", "etcd3", "unittest")
"""Their `__init__` imports every module they have: 7 MB with SQLite, 1 MB, 1 MB (pyroute2
imports `unittest.mock`). Bare, they are packages whose modules one imports by name."""

M_ARENA_MAX = -8
"""mallopt(3)."""
MADV_DONTNEED = 4
"""madvise(2)."""

START_S = 5.0
"""Past it, what the start made and touched is no longer needed."""
INTERVAL_S = 60.0

_libc = ctypes.CDLL(None, use_errno=True)


def begin() -> None:
    """Before anything else of the agent is imported."""
    for name in ABSENT:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None: there is no such
    for name in BARE:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is not None:
            sys.modules[name] = importlib.util.module_from_spec(spec)
    # one arena for all threads: gRPC's would touch one each, for a few kilobytes
    _libc.mallopt(M_ARENA_MAX, 1)


async def run() -> None:
    """Give back what is not in use, soon after the start and then now and again. Never returns."""
    await asyncio.sleep(START_S)
    gc.collect()
    gc.freeze()  # what lives now lives on: no later collection looks at it again
    while True:
        gc.collect()  # netlink requests leave cycles; what is frozen costs it nothing
        give_back()
        await asyncio.sleep(INTERVAL_S)


def give_back() -> None:
    """Free heap pages, and code that is mapped though nothing runs it: 12 MB after the start.
    What does run comes back from the page cache, at a microsecond a fault."""
    _libc.malloc_trim(0)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, _offset, _device, inode, *_path = line.split()
        if permissions == "r-xp" and inode != "0":
            first, end = (int(address, 16) for address in span.split("-"))
            _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), MADV_DONTNEED)
