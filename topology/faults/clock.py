"""A host whose clock is wrong: libfaketime, preloaded into what starts there from now on.

The kernel has namespaces for its monotonic clocks only; the time of day is the machine's,
and a lab host may not set it. So the C library of the host's processes is told another one.
Processes that run already, and those that do not ask the C library (etcd is Go), keep the
machine's. Monotonic clocks stay right: BPF and its readers share them.
"""

from __future__ import annotations

from pathlib import Path

from meshnet.errors import CapabilityMissing, UsageError
from topology.netns import runtime
from topology.state import LabState

PRELOAD = "etc/ld.so.preload"
OFFSET = "etc/faketimerc"
"""Where the library looks; a change of it is seen within a second."""


def seconds(text: str) -> float:
    """`+3600` or `-0.5`."""
    try:
        if text[:1] not in ("+", "-"):
            raise ValueError
        return float(text.removesuffix("s"))
    except ValueError as error:
        raise UsageError(f"{text!r} is no difference in seconds: write +3600 or -30") from error


def shift(lab: LabState, node: str, offset_s: float) -> None:
    """Raises CapabilityMissing: libfaketime is not installed."""
    root = _root(lab, node)
    (root / PRELOAD).write_text(f"{_library()}\n")
    (root / OFFSET).write_text(f"{offset_s:+f}s\n")


def restore(lab: LabState, node: str) -> None:
    """What runs with the library has the machine's time again, within a second."""
    root = _root(lab, node)
    if (root / OFFSET).exists():
        (root / PRELOAD).unlink(missing_ok=True)
        (root / OFFSET).write_text("+0s\n")


def _root(lab: LabState, node: str) -> Path:
    return Path(f"/proc/{runtime.live_pid(lab, node)}/root")


def _library() -> Path:
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        raise CapabilityMissing("libfaketime is not installed: `apt install libfaketime`")
    return found
