"""A terminal of its own for a command (`-t`), joined to ours."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import termios
import threading
import tty
from collections.abc import Iterator

import attrs

CHUNK = 65536


@attrs.frozen
class Terminal:
    """A pseudo terminal: the command has its slave, we copy between its master and ours."""

    master: int
    slave: int

    @classmethod
    def open(cls) -> Terminal:
        master, slave = os.openpty()
        terminal = cls(master, slave)
        terminal.resize()
        return terminal

    def adopt(self) -> None:
        """In the child: make it the controlling terminal, and stdin, stdout and stderr."""
        os.close(self.master)
        os.login_tty(self.slave)

    def resize(self) -> None:
        """Give it the size of our terminal, where we have one."""
        if sys.stdout.isatty():
            size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """In the parent: copy both ways, our own terminal raw meanwhile.

        On the way out the rest of the command's output is copied first.
        """
        os.close(self.slave)
        stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
        before = termios.tcgetattr(stdin) if os.isatty(stdin) else None
        if before is not None:
            tty.setraw(stdin)
        output = threading.Thread(target=_copy, args=(self.master, stdout))
        output.start()
        # nothing ends a read of our stdin but the end of this process
        threading.Thread(target=_copy, args=(stdin, self.master), daemon=True).start()
        try:
            yield
            output.join()
        finally:
            if before is not None:
                termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _copy(source: int, sink: int) -> None:
    """Copy until either side is closed (a pty's master reads EIO then)."""
    with contextlib.suppress(OSError):
        while chunk := os.read(source, CHUNK):
            view = memoryview(chunk)
            while view:
                view = view[os.write(sink, view) :]
