"""Clients inside an endpoint, or on a host, that say a line at a time while a test goes on."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.support.formed import Mesh, Workload, eventually


class Client:
    """A client inside an endpoint, which says a line at a time."""

    def __init__(self, mesh: Mesh, client: Workload | str, script: str, *words: str) -> None:
        """`client`: an endpoint, or the name of a host."""
        argv = [sys.executable, "-c", script, *words]
        if isinstance(client, Workload):
            argv = ["meshnet", "exec", client.name, "--", *argv]
        node = client.node if isinstance(client, Workload) else client
        self._process = subprocess.Popen(
            mesh[node].argv(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = ThreadPoolExecutor(1)
        self._reader.submit(self._follow)

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.strip())

    def ask(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def said(self, number: int, *, within_s: float = 30) -> str:
        """Its line of that number, from 0, when it is there: Python starts slowly beside others."""
        eventually(lambda: len(self.lines) > number, within_s=within_s)
        return self.lines[number]

    def close(self) -> None:
        self._process.terminate()  # passed on to what runs inside
        self._process.wait(10)
        self._reader.shutdown()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
