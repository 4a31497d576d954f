"""Entering namespaces: of a process, or of a file such as /run/netns/web.

`setns(2)` moves the calling *thread*. Use these in a child before it execs, in a command
that only lives inside, or in a thread of its own, never on an event loop.
Python has `os.setns` from 3.12 on; until then it is ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from meshnet.errors import CapabilityMissing, NotFound, PermissionRefused, UsageError

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace(enum.IntFlag):
    """CLONE_NEW* of <linux/sched.h>."""

    MOUNT = 0x00020000
    CGROUP = 0x02000000
    UTS = 0x04000000
    IPC = 0x08000000
    PID = 0x20000000
    NET = 0x40000000


@contextlib.contextmanager
def opened(pid: int) -> Iterator[int]:
    """A pidfd of a process: what `enter` takes. It means that process whatever the PID
    namespace of whoever uses it, and never another one.

    Raises:
        NotFound: the process has ended.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError as error:
        raise NotFound(f"process {pid} has ended, and its namespaces with it") from error
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def enter(pidfd: int, kinds: Namespace) -> None:
    """Enter several namespaces of a process in one step: all of them or none.

    With `PID` only children made afterwards are inside. With `MOUNT` the working
    directory and root become those of the namespace.

    Raises:
        NotFound: the process has ended.
        PermissionRefused: not root.
    """
    _setns(pidfd, kinds, "the namespaces of a process")


def enter_process(pid: int, kinds: Namespace) -> None:
    """The same by PID, for a caller in the PID namespace where it is valid."""
    with opened(pid) as pidfd:
        enter(pidfd, kinds)


def enter_path(path: Path | str, kind: Namespace) -> None:
    """Enter the namespace that a file holds, such as /run/netns/web or /proc/7/ns/net.

    Raises:
        NotFound: no such file.
        UsageError: it is no namespace of that kind.
        PermissionRefused: not root.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"namespace {path} does not exist") from error
    try:
        _setns(descriptor, kind, str(path))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def children_in_pid_namespace(pidfd: int) -> Iterator[None]:
    """Processes forked in this block are in that PID namespace; we stay outside.

    No thread can be started inside the block: the kernel refuses one whose PID
    namespace would differ from its process's.
    """
    enter(pidfd, Namespace.PID)
    try:
        yield
    finally:
        enter_path("/proc/self/ns/pid", Namespace.PID)


def unshare(kinds: Namespace) -> None:
    """Leave the present namespaces of these kinds for fresh ones.

    Raises:
        PermissionRefused: not root.
        CapabilityMissing: the kernel has no such namespaces.
    """
    if _libc.unshare(ctypes.c_int(kinds)) == 0:
        return
    _refuse(ctypes.get_errno(), f"new namespaces ({kinds!r})")


def _setns(descriptor: int, kinds: Namespace, what: str) -> None:
    if _libc.setns(descriptor, ctypes.c_int(kinds)) == 0:
        return
    _refuse(ctypes.get_errno(), what)


def _refuse(code: int, what: str) -> NoReturn:
    reason = os.strerror(code)
    if code == errno.EPERM:
        raise PermissionRefused(f"{what} cannot be entered: {reason}; run as root")
    if code == errno.ESRCH:
        raise NotFound(f"{what} cannot be entered: the process has ended")
    if code in (errno.ENOSYS, errno.ENOSPC):
        raise CapabilityMissing(f"{what} cannot be made: {reason}; is the kernel built with them?")
    raise UsageError(f"{what} cannot be entered: {reason}")
