"""Processes are told apart by their start time, waited for, and ended."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshnet.host import process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def test_a_start_time_is_the_same_every_time_and_none_after_the_end(
    sleeper: subprocess.Popen[bytes],
) -> None:
    started = process.start_time(sleeper.pid)
    assert started is not None and started == process.start_time(sleeper.pid)
    sleeper.kill()
    while process.start_time(sleeper.pid) is not None:  # a zombie has ended
        time.sleep(0.001)
    sleeper.wait()
    assert process.start_time(sleeper.pid) is None


def test_a_start_time_is_read_past_any_name() -> None:
    script = "import ctypes, time; ctypes.CDLL(None).prctl(15, b') 1 (2', 0, 0, 0); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", script])
    try:
        expected = process.start_time(child.pid)
        deadline = time.monotonic() + 10
        while Path(f"/proc/{child.pid}/comm").read_text() != ") 1 (2\n":
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert process.start_time(child.pid) == expected
    finally:
        child.kill()
        child.wait()


async def test_waiting_ends_with_the_process(sleeper: subprocess.Popen[bytes]) -> None:
    started = process.start_time(sleeper.pid)
    waiting = asyncio.ensure_future(process.wait_exit(sleeper.pid, started))
    await asyncio.sleep(0)
    assert not waiting.done()
    sleeper.kill()
    await asyncio.wait_for(waiting, 5)


async def test_another_process_under_the_same_number_counts_as_ended(
    sleeper: subprocess.Popen[bytes],
) -> None:
    started = process.start_time(sleeper.pid)
    assert started is not None
    await asyncio.wait_for(process.wait_exit(sleeper.pid, started - 1), 5)
    await process.terminate(sleeper.pid, started - 1)
    assert process.start_time(sleeper.pid) == started, "the stranger was left alone"


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[bytes]]:
    script = "trap '' TERM; echo ready; while :; do sleep 0.02; done"
    child = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


async def test_terminate_asks_first_and_kills_who_does_not_listen(
    stubborn: subprocess.Popen[bytes],
) -> None:
    started = process.start_time(stubborn.pid)
    await process.terminate(stubborn.pid, started, grace_s=0.1)
    assert stubborn.wait() == -9
    await process.terminate(stubborn.pid, started)  # gone already


async def test_terminate_leaves_a_listener_its_own_ending(
    sleeper: subprocess.Popen[bytes],
) -> None:
    await process.terminate(sleeper.pid, process.start_time(sleeper.pid))
    assert sleeper.wait() == -15


def test_a_daemon_has_its_own_session_and_its_output_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = process.spawn_detached(["sh", "-c", "ps -o sid= -p $$; echo $WORD >&2"], log=log,
                                 env={**os.environ, "WORD": "loud"})  # fmt: skip
    deadline = time.monotonic() + 10
    while process.start_time(pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    session, word = log.read_text().split()
    assert word == "loud" and int(session) != os.getsid(0)


def test_a_daemon_that_cannot_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there-is-none"):
        process.spawn_detached(["/there-is-none"], log=tmp_path / "log")
