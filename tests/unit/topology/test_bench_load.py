"""The load generator of the benchmarks, over loopback."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from topology.bench import sides


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sides, "BUILD", tmp_path_factory.mktemp("bench"))
        return sides.build_load()


@pytest.fixture(scope="module")
def port(program: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = str(free.getsockname()[1])
    server = subprocess.Popen([program, "serve", number])
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(number))).close()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the server does not listen"
    yield number
    server.kill()
    server.wait()


def said(program: Path, *words: str) -> float:
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=20, check=True)
    return float(done.stdout)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_streams_and_round_trips_are_counted(program: Path, port: str, address: str) -> None:
    assert said(program, "stream", address, port, "100") > 1e6
    assert said(program, "rr", address, port, "100") > 10


def test_connections_are_counted_one_by_one(program: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = str(free.getsockname()[1])
    server = subprocess.Popen([program, "accept", number])
    try:
        deadline = time.monotonic() + 10
        while subprocess.run([program, "connects", "::1", number, "1"], check=False,
                             capture_output=True).returncode:  # fmt: skip
            assert time.monotonic() < deadline, "the server does not listen"
        assert said(program, "connects", "127.0.0.1", number, "100") > 10
    finally:
        server.kill()
        server.wait()


def test_a_flood_has_as_many_flows_as_asked_for(program: Path) -> None:
    assert said(program, "flood", "127.0.0.1", "50", "100000") > 100


@pytest.mark.parametrize(
    "words",
    [(), ("stream", "::1"), ("stream", "nowhere", "1", "1"), ("flood", "::1", "1", "9999999")],
)
def test_a_wrong_call_is_refused(program: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr
