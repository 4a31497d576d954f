"""Which faults a lab has, and what must be put back: a file beside the lab's record."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from topology import state

Offloads = dict[tuple[str, str], list[str]]


@attrs.define
class Book:
    _path: Path
    active: list[str]
    """As they were asked for: `cut east-1 west-1`."""
    offloads: Offloads
    """Node and interface -> features that a fault turned off."""

    def note(self, words: Sequence[str]) -> None:
        line = " ".join(words)
        if line not in self.active:
            self.active.append(line)
        self._write()

    def note_offloads(self, where: tuple[str, str], features: Sequence[str]) -> None:
        """Before they are turned off, so that a crash between loses nothing."""
        self.offloads.setdefault(where, []).extend(features)
        self._write()

    def clear(self) -> None:
        self.active, self.offloads = [], {}
        self._write()

    def _write(self) -> None:
        offloads = [[*where, features] for where, features in self.offloads.items()]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"active": self.active, "offloads": offloads}))
        temporary.replace(self._path)


@contextlib.contextmanager
def opened(lab: str) -> Iterator[Book]:
    """One at a time."""
    with open(state.directory(lab) / "faults.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _read(lab)


def active(lab: str) -> list[str]:
    """The faults that a lab has now."""
    return _read(lab).active


def _read(lab: str) -> Book:
    path = state.directory(lab) / "faults.json"
    try:
        said = json.loads(path.read_text())
    except FileNotFoundError:
        said = {"active": [], "offloads": []}
    offloads = {(node, ifname): features for node, ifname, features in said["offloads"]}
    return Book(path, said["active"], offloads)
