"""Real sockets in a cgroup of their own: servers that say who they are, clients that ask.

with cgroup() as group, servers(...) as ...:
    assert group.ask("tcp", "100.64.0.10", 80) == ("100.64.0.10", 80, "one")
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import attrs

from meshnet.host.cgroup import Cgroup, hierarchy

_runs = count()

CLIENT = r"""
import json, socket, sys
kind, host, port, times = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
answers = []
def note(peer, text):
    answers.append([peer[0], peer[1], text])
try:
    if kind == "tcp":
        for _ in range(times):
            with socket.socket(family, socket.SOCK_STREAM) as s:
                s.settimeout(2)
                s.connect((host, port))
                note(s.getpeername(), s.recv(64).decode())
    if kind == "udp":
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.settimeout(2)
            for _ in range(times):
                s.sendto(b"?", (host, port))
                text, peer = s.recvfrom(64)
                note(peer, text.decode())
    if kind == "connected-udp":
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.settimeout(2)
            s.connect((host, port))
            for _ in range(times):
                s.send(b"?")
                text, peer = s.recvfrom(64)
                note(s.getpeername(), text.decode())
                assert peer[:2] == s.getpeername()[:2]
except OSError as error:
    answers.append(["error", error.errno, str(error)])
print(json.dumps(answers))
"""

WAITER = r"""
import socket, sys
host, port, again, port_again = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
def ask():
    s.settimeout(2)
    while True:
        s.send(b"?")
        try:
            answer = s.recv(64).decode()
        except TimeoutError:
            continue
        s.settimeout(None)
        return answer
s.connect((host, port))
print(ask(), flush=True)
try:
    print(s.recv(64).decode(), flush=True)
except OSError as error:
    print(error.errno, flush=True)
s.connect((again, port_again))
print(ask(), flush=True)
"""
"""Connects a datagram socket, asks until it is answered, and waits for what nobody sends; told that
it lost its peer, it connects and asks again. A line for each."""

Answer = tuple[str, int, str]


@attrs.frozen
class Group:
    """A cgroup that clients run in."""

    path: Path

    def ask_often(self, kind: str, host: str, port: int, times: int) -> list[Answer]:
        """`kind`: tcp (a connection a time), udp (one socket), connected-udp."""
        procs = self.path / "cgroup.procs"
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, kind, host, str(port), str(times)],
            preexec_fn=lambda: procs.write_text(str(os.getpid())),  # before any socket
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return [(a, b, c) for a, b, c in json.loads(done.stdout)]

    @contextlib.contextmanager
    def waiting(
        self, host: str, port: int, again: tuple[str, int]
    ) -> Iterator[subprocess.Popen[str]]:
        """A client that runs WAITER, which ends with the block."""
        procs = self.path / "cgroup.procs"
        argv = [sys.executable, "-c", WAITER, host, str(port), again[0], str(again[1])]
        client = subprocess.Popen(
            argv,
            preexec_fn=lambda: procs.write_text(str(os.getpid())),
            stdout=subprocess.PIPE,
            text=True,
        )
        with client:
            try:
                yield client
            finally:
                client.kill()

    def ask(self, kind: str, host: str, port: int) -> Answer:
        (answer,) = self.ask_often(kind, host, port, 1)
        return answer


@contextlib.contextmanager
def cgroup() -> Iterator[Group]:
    group = Cgroup(hierarchy() / f"meshnet-test-{os.getpid()}-{next(_runs)}")
    group.create()
    try:
        yield Group(group.path)
    finally:
        group.kill()
        group.remove()


@contextlib.contextmanager
def servers(names: dict[str, tuple[str, int]]) -> Iterator[None]:
    """TCP and UDP servers, each on its address, in the current network namespace; the answer
    is the name. They end with the block."""
    with contextlib.ExitStack() as stack:
        threads = []
        for name, (host, port) in names.items():
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            for kind, serve in ((socket.SOCK_STREAM, _stream), (socket.SOCK_DGRAM, _datagram)):
                opened = stack.enter_context(socket.socket(family, kind))
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                opened.bind((host, port))
                if kind == socket.SOCK_STREAM:
                    opened.listen(64)
                thread = threading.Thread(target=serve, args=(opened, name.encode()))
                thread.start()
                threads.append((thread, opened))
        try:
            yield
        finally:
            for thread, opened in threads:
                opened.shutdown(socket.SHUT_RD) if opened.type == socket.SOCK_STREAM else _poke(
                    opened
                )
                thread.join(5)


def _poke(opened: socket.socket) -> None:
    with socket.socket(opened.family, socket.SOCK_DGRAM) as last:
        last.sendto(b"end", opened.getsockname())


def _stream(opened: socket.socket, name: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = opened.accept()
            with client:
                client.sendall(name)


def _datagram(opened: socket.socket, name: bytes) -> None:
    while True:
        text, client = opened.recvfrom(64)
        if text == b"end":
            return
        opened.sendto(name, client)
