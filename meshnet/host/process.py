"""Processes that are not our children: who they are, when they end, and ending them.

A PID alone names nobody: the kernel gives it to the next process. So a process is its PID
and its start time, and is waited for and signalled through a pidfd, which cannot come to
mean another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

TERMINATE_GRACE_S = 5.0


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of the process; None when it has ended.

    A zombie has ended. Source: proc(5), /proc/pid/stat, fields 3 and 22.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the name before it stands in parentheses and may hold anything, parentheses too
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@contextlib.contextmanager
def _opened(pid: int, started: int | None) -> Iterator[int | None]:
    """A pidfd of exactly that process; None when it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        found = start_time(pid)
        same = found is not None and started in (None, found)
        yield pidfd if same else None
    finally:
        os.close(pidfd)


async def wait_exit(pid: int, started: int | None = None) -> None:
    """Return when the process has ended, at once when it has already.

    Args:
        started: its start time; another process under the same PID counts as ended.
    """
    with _opened(pid, started) as pidfd:
        if pidfd is None:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)


async def terminate(
    pid: int, started: int | None = None, *, grace_s: float = TERMINATE_GRACE_S
) -> None:
    """End a process: SIGTERM, and SIGKILL when it still runs after `grace_s`.

    Returns when it has ended. One that is gone already is not an error.
    """
    with _opened(pid, started) as pidfd:
        if pidfd is None or not _send(pidfd, signal.SIGTERM):
            return
        try:
            async with asyncio.timeout(grace_s):
                await wait_exit(pid, started)
        except TimeoutError:
            _send(pidfd, signal.SIGKILL)
            await wait_exit(pid, started)


def _send(pidfd: int, number: signal.Signals) -> bool:
    """Whether there was still somebody to get it."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def spawn_detached(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> int:
    """Start a daemon: its own session, no terminal, output appended to `log`. Returns its PID.

    It is forked twice, so it is never ours to reap. Only for a process without threads.

    Raises:
        OSError: it could not be executed, with the errno of that.
    """
    outcome_read, outcome_write = os.pipe()  # closed by a successful exec
    middle = os.fork()
    if middle == 0:
        os.close(outcome_read)
        _become_daemon(argv, outcome_write, log=log, env=os.environ if env is None else env)
    os.close(outcome_write)
    with open(outcome_read, "rb") as outcome:
        words = outcome.read().split()
    os.waitpid(middle, 0)
    pid = int(words[0])
    if len(words) > 1:
        code = int(words[1])
        raise OSError(code, os.strerror(code), argv[0])
    return pid


def _become_daemon(argv: Sequence[str], outcome: int, *, log: Path, env: Mapping[str, str]) -> None:
    """The child's side of `spawn_detached`: never returns."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(outcome, f"{os.getpid()} ".encode())
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(argv[0], list(argv), env)
    except OSError as error:
        os.write(outcome, f"{error.errno} ".encode())
    finally:
        os._exit(125)
