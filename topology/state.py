"""What labs there are: one directory each in /run/meshnet-labs, written before anything is made.

So whatever a crash leaves has an entry here, and `lab down NAME` finds it. The directory's
name is also the name of the lab's cgroup, which holds every process of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import cattrs

from meshnet.errors import AlreadyExists, LabError, NotFound
from topology.model import DEFAULT_PREFIX, RuntimeKind, long_name

LABS = Path("/run/meshnet-labs")


@attrs.frozen(kw_only=True)
class NodeState:
    kind: str
    env: Mapping[str, str]
    labels: Mapping[str, str]
    definition: str = ""
    """Changes when the file says something else of the node."""
    pid: int | None = None
    """Its init, in our PID namespace; None until it runs."""
    start_time: int | None = None
    addresses: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """Of its links, once it was up: what a link that is laid again gets back."""


@attrs.frozen(kw_only=True)
class LinkState:
    one: tuple[str, str]
    """Node and interface."""
    other: tuple[str, str]
    definition: str


@attrs.frozen(kw_only=True)
class LabState:
    name: str
    file: str
    runtime: RuntimeKind
    nodes: Mapping[str, NodeState]
    links: tuple[LinkState, ...] = ()
    prefix: str = DEFAULT_PREFIX
    complete: bool = False
    """`up` has finished. Else it runs still, or crashed."""

    def called(self, name: str) -> str | None:
        """The node of that name, short or as containerlab has it; None: there is none."""
        longs = {long_name(self.prefix, self.name, node): node for node in self.nodes}
        return name if name in self.nodes else longs.get(name)


_converter = cattrs.Converter()


def directory(lab: str) -> Path:
    return LABS / lab


def create(state: LabState) -> None:
    """Claim the name: of two at once, one gets it.

    Raises:
        AlreadyExists: such a lab is up, or crashed on its way up or down.
    """
    path = directory(state.name)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = LABS / f".{state.name}.{os.getpid()}"
    draft.mkdir()
    try:
        _write(draft, state)
        draft.rename(path)  # refused by the kernel where `path` is a directory with something in it
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _already(state.name) from error
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def changing(lab: str) -> Iterator[LabState]:
    """A lab that is up, for as long as nobody else changes it.

    Raises:
        LabError: somebody does.
        AlreadyExists: its first `up` runs still, or crashed.
    """
    with open(directory(lab) / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError(
                f"lab {lab!r}: another `meshnet lab up` is at work on it: wait for its end"
            ) from error
        state = load(lab)
        if not state.complete:
            raise _already(lab)
        yield state


def _already(lab: str) -> AlreadyExists:
    return AlreadyExists(
        f"lab {lab!r} exists already: see `meshnet lab status {lab}`, or take it away with "
        f"`meshnet lab down {lab}`"
    )


def save(state: LabState) -> None:
    _write(directory(state.name), state)


def _write(path: Path, state: LabState) -> None:
    temporary = path / "lab.json.tmp"
    temporary.write_text(json.dumps(_converter.unstructure(state), indent=2))
    temporary.replace(path / "lab.json")


def load(lab: str) -> LabState:
    """Raises NotFound that lists the labs there are."""
    try:
        text = (directory(lab) / "lab.json").read_text()
    except (FileNotFoundError, NotADirectoryError) as error:
        there = ", ".join(state.name for state in load_all()) or "none"
        raise NotFound(
            f"no lab is called {lab!r} (labs: {there}): `meshnet lab up FILE` makes one"
        ) from error
    try:
        return _converter.structure(json.loads(text), LabState)
    except (ValueError, cattrs.BaseValidationError) as error:
        raise LabError(
            f"{directory(lab)}/lab.json is damaged ({error}): take the lab away with "
            f"`meshnet lab down {lab}`"
        ) from error


def load_all() -> list[LabState]:
    """Every lab, by name."""
    names = sorted(path.parent.name for path in LABS.glob("[!.]*/lab.json"))
    return [load(name) for name in names]


def remove(lab: str) -> None:
    """Forget it. Absent is not an error."""
    shutil.rmtree(directory(lab), ignore_errors=True)
    sweep(lab)


def sweep(lab: str) -> bool:
    """Remove drafts of entries that a killed `up` left. Whether there were any."""
    drafts = list(LABS.glob(f".{lab}.*"))
    for draft in drafts:
        shutil.rmtree(draft, ignore_errors=True)
    with contextlib.suppress(OSError):  # other labs are there
        LABS.rmdir()
    return bool(drafts)
