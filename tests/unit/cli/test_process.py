"""Commands in endpoints: held until released, signals forwarded, status as a shell gives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from meshnet.cli import process
from meshnet.errors import NotFound, NotStarted

RUN = (
    "import sys; from meshnet.cli import process; "
    "c = process.hold(sys.argv[1:], lambda: None); c.release(); sys.exit(c.supervise())"
)
"""A program that does as `meshnet run` with its arguments."""


def stay() -> None:
    """Enter no other namespace."""


def run(*argv: str) -> int:
    child = process.hold(list(argv), stay)
    child.release()
    return child.supervise()


def test_status_is_the_commands_own() -> None:
    assert run("true") == 0
    assert run("sh", "-c", "exit 7") == 7
    assert run("sh", "-c", "kill -KILL $$") == 128 + signal.SIGKILL


def test_the_end_is_seen_though_another_thread_took_the_signal() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()  # before `hold` blocks SIGCHLD: this one is given it
    try:
        child = process.hold(["true"], stay)
        child.release()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        time.sleep(0.05)  # the signal is gone when nobody was waiting
        assert child.supervise() == 0
    finally:
        done.set()
        thread.join()


def test_nothing_of_the_command_happens_before_its_release(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    child = process.hold(["touch", str(mark)], stay)
    time.sleep(0.05)
    assert not mark.exists()
    child.release()
    assert child.supervise() == 0
    assert mark.exists()


def test_an_abandoned_command_never_runs(tmp_path: Path) -> None:
    child = process.hold(["touch", str(tmp_path / "mark")], stay)
    child.abandon()
    assert not (tmp_path / "mark").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["/nope/command"], 127, "/nope/command: command not found"),
        (["no-such-command"], 127, "no-such-command: command not found"),
        (["/etc/passwd"], 126, "/etc/passwd cannot be executed: Permission denied"),
    ],
)
def test_what_cannot_be_executed_is_told_as_by_a_shell(
    argv: list[str], code: int, message: str
) -> None:
    child = process.hold(argv, stay)
    with pytest.raises(NotStarted, match=message) as caught:
        child.release()
    assert caught.value.exit_code == code


def test_failing_to_enter_is_our_own_failure() -> None:
    def enter() -> None:
        raise NotFound("namespace /run/netns/gone does not exist")

    child = process.hold(["true"], enter)
    with pytest.raises(NotStarted, match="namespace /run/netns/gone does not exist") as caught:
        child.release()
    assert caught.value.exit_code == 125


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT", "WINCH"])
def test_signals_are_forwarded(name: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'exit 42' {name}; touch {ready}; while :; do sleep 0.02; done"
    # a process of its own, without threads: a signal to ours is any thread's to take
    with subprocess.Popen([sys.executable, "-c", RUN, "sh", "-c", script]) as running:
        while not ready.exists():
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.Signals[f"SIG{name}"])
        assert running.wait(timeout=20) == 42


def test_the_command_starts_with_signals_as_from_a_shell(tmp_path: Path) -> None:
    """Blocked and ignored is what was before, less what Python ignores for itself."""
    ours = Path("/proc/thread-self/status")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    pythons_own = _bit(signal.SIGPIPE) | _bit(signal.SIGXFSZ)
    file = tmp_path / "status"
    assert run("sh", "-c", f"cat /proc/self/status > {file}") == 0
    assert _signals(file, "SigBlk") == _signals(ours, "SigBlk")
    assert _signals(file, "SigIgn") == _signals(ours, "SigIgn") & ~pythons_own
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def _bit(number: int) -> int:
    return 1 << (number - 1)


def _signals(status: Path, kind: str) -> int:
    """A mask of proc(5), /proc/pid/status."""
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[kind], 16)


def test_streams_pass_byte_for_byte() -> None:
    payload = bytes(range(256)) * 1000
    done = subprocess.run([sys.executable, "-c", RUN, "cat"], input=payload, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, payload, b"")


def test_a_terminal_is_the_commands_own() -> None:
    program = (
        "import sys; from meshnet.cli import process; from meshnet.cli.terminal import Terminal\n"
        "t = Terminal.open(); c = process.hold(['sh', '-c', 'test -t 0 && tty && exit 3'], "
        "t.adopt)\n"
        "with t.joined():\n    c.release(); code = c.supervise(on_resize=t.resize)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=20)  # fmt: skip
    assert done.returncode == 3
    assert done.stdout.startswith(b"/dev/pts/")
