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
from collections.abc import Iterator
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
    """Free heap pages, and what is mapped of files though nothing uses it, code and constants:
    20 MB after the start. What is used comes back from the page cache, at a microsecond a fault."""
    _libc.malloc_trim(0)
    for first, end in _as_in_its_file(Path("/proc/self/smaps").read_text()):
        _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), MADV_DONTNEED)


def _as_in_its_file(smaps: str) -> Iterator[tuple[int, int]]:
    """Private mappings of a file that cannot be written, and that hold no page of their own: a
    library's relocated data is such a page, and would be lost. Shared ones are the kernel's maps.

    Source: proc(5), /proc/pid/smaps.
    """
    span, of_file = (0, 0), False
    for line in smaps.splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            first, _, end = words[0].partition("-")
            span = (int(first, 16), int(end, 16))
            of_file = words[1] in ("r--p", "r-xp") and words[4] != "0"
        elif words[0] == "Anonymous:" and words[1] == "0" and of_file:
            yield span
