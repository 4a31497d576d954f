"""mount(2) and its relatives, and what is mounted."""

from __future__ import annotations

import ctypes
import enum
import os
import re
from pathlib import Path

import attrs

_libc = ctypes.CDLL(None, use_errno=True)

UMOUNT_DETACH = 2
"""MNT_DETACH of <sys/mount.h>: out of sight now, gone with its last user."""


class Flag(enum.IntFlag):
    """MS_* of <sys/mount.h>."""

    NONE = 0
    READ_ONLY = 1
    NO_SUID = 2
    NO_DEV = 4
    NO_EXEC = 8
    REMOUNT = 32
    BIND = 4096
    RECURSIVE = 16384
    PRIVATE = 1 << 18
    SLAVE = 1 << 19


@attrs.frozen
class Mount:
    """One line of /proc/self/mountinfo."""

    target: Path
    filesystem: str
    root: str
    """What of the file system is mounted: `/`, or a directory of it for a bind mount."""


def mounts() -> list[Mount]:
    """What is mounted in the calling process's mount namespace, in mount order.

    Source: proc(5), /proc/pid/mountinfo.
    """
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        kind = fields[fields.index("-") + 1]
        found.append(Mount(Path(_unescape(fields[4])), kind, _unescape(fields[3])))
    return found


def _unescape(text: str) -> str:
    """Space, tab, newline and backslash are written as octal there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mount(
    source: Path | str,
    target: Path | str,
    filesystem: str = "",
    flags: Flag = Flag.NONE,
    options: str = "",
) -> None:
    """mount(2). Raises OSError that names the target."""
    words = (os.fsencode(source), os.fsencode(target), filesystem.encode())
    if _libc.mount(*words, ctypes.c_ulong(flags), options.encode()):
        _raise(target)


def unmount(target: Path | str, flags: int = 0) -> None:
    """umount2(2). Raises OSError that names the target."""
    if _libc.umount2(os.fsencode(target), flags):
        _raise(target)


def bind(source: Path | str, target: Path | str, *, read_only: bool = False) -> None:
    """Show `source`, with what is mounted below it, at `target` too."""
    mount(source, target, flags=Flag.BIND | Flag.RECURSIVE)
    if read_only:
        mount("none", target, flags=Flag.BIND | Flag.REMOUNT | Flag.READ_ONLY)


def pivot_root(new: Path, old: Path) -> None:
    """Make `new`, a mount point, the root of this mount namespace.

    Args:
        old: a directory below `new`, which then shows the old root until it is unmounted.
    """
    if _libc.pivot_root(os.fsencode(new), os.fsencode(old)):
        _raise(new)
    os.chdir("/")


def _raise(target: Path | str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), str(target))
