"""A command of the operator's, inside an endpoint: started, watched, and its status told.

The child is held between fork and exec until its parent let it go: so the agent knows the
process that the endpoint lives with before that process does anything. What fails before
the exec travels back through a pipe that a successful exec closes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from typing import NoReturn

import attrs

from meshnet.errors import NotStarted

OWN_FAILURE = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGQUIT,
    signal.SIGWINCH,
)
SI_KERNEL = 0x80
"""siginfo.si_code of what the terminal sent: to its whole foreground group, so to the child
too (include/uapi/asm-generic/siginfo.h)."""
LOOK_AGAIN_S = 0.5
"""A thread that does not block SIGCHLD, such as a library's, may have been given ours."""


@attrs.frozen
class HeldProcess:
    """A child that has entered its endpoint and waits to become its command."""

    pid: int
    _go: int
    _outcome: int
    _mask: set[int | signal.Signals]
    """The signals that were blocked before it was made."""

    def release(self) -> None:
        """Let it exec; returns when it has.

        Raises:
            NotStarted: it could not, and is gone. Exit code 127 when there is no such
                command, 126 when it cannot be executed, 125 when entering failed.
        """
        with contextlib.suppress(BrokenPipeError):  # it failed to enter, and says so below
            os.write(self._go, b"!")
        os.close(self._go)
        with open(self._outcome, "rb") as outcome:
            told = outcome.read()
        if told:
            self._reap()
            failure = json.loads(told)
            raise NotStarted(failure["message"], exit_code=failure["exit_code"])

    def abandon(self) -> None:
        """Let it go without its command: it ends at once."""
        os.close(self._go)
        os.close(self._outcome)
        self._reap()

    def _reap(self) -> None:
        os.waitpid(self.pid, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def supervise(self, *, on_resize: Callable[[], None] | None = None) -> int:
        """Wait for its end and forward signals; returns its status as a shell gives it.

        Args:
            on_resize: called for SIGWINCH when the child has a terminal of its own; such
                a child gets none of our terminal's signals by itself.
        """
        while True:
            info = signal.sigtimedwait((*FORWARDED, signal.SIGCHLD), LOOK_AGAIN_S)
            if info is None or info.si_signo == signal.SIGCHLD:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                if ended:
                    break
            elif info.si_signo == signal.SIGWINCH and on_resize is not None:
                on_resize()
            elif info.si_code != SI_KERNEL or on_resize is not None:
                os.kill(self.pid, info.si_signo)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


def hold(argv: list[str], enter: Callable[[], None]) -> HeldProcess:
    """Fork a child that runs `enter` and then waits.

    Signals that are forwarded later are blocked in the parent from here on, so that none
    is lost or kills the parent in between; the child gets the mask that was.
    """
    go_read, go_write = os.pipe()
    outcome_read, outcome_write = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*FORWARDED, signal.SIGCHLD))
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        os.close(outcome_read)
        _become(argv, enter, mask, go=go_read, outcome=outcome_write)
    os.close(go_read)
    os.close(outcome_write)
    return HeldProcess(pid, go_write, outcome_read, mask)


def _become(
    argv: list[str],
    enter: Callable[[], None],
    mask: set[int | signal.Signals],
    *,
    go: int,
    outcome: int,
) -> NoReturn:
    """The child's side of `hold`. Never returns into the parent's code."""
    code = OWN_FAILURE
    try:
        enter()
        if os.read(go, 1):
            replace(argv, mask)
    except NotStarted as failure:
        code = failure.exit_code
        _tell(outcome, str(failure), code)
    except Exception as failure:  # the parent raises it; here nobody could
        _tell(outcome, str(failure) or repr(failure), code)
    finally:
        os._exit(code)


def _tell(outcome: int, message: str, exit_code: int) -> None:
    os.write(outcome, json.dumps({"message": message, "exit_code": exit_code}).encode())


def replace(argv: list[str], mask: set[int | signal.Signals] | None = None) -> NoReturn:
    """Become the command: exec, with the signals as a shell would give them.

    Raises:
        NotStarted: with a shell's exit code for it.
    """
    # Python ignores the first two, which would stay so after exec; an interrupt must not
    # become an exception between here and there
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        if number is not signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execvp(argv[0], argv)
    except FileNotFoundError as error:
        raise NotStarted(f"{argv[0]}: command not found", exit_code=NOT_FOUND) from error
    except OSError as error:
        raise NotStarted(
            f"{argv[0]} cannot be executed: {error.strerror}", exit_code=NOT_EXECUTABLE
        ) from error
