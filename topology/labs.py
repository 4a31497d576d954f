"""Labs of whatever runtime: up, down, and found again by name."""

from __future__ import annotations

from pathlib import Path

from meshnet.errors import LabError, NotFound, UsageError
from topology import clab, containerlab, state
from topology.model import RuntimeKind
from topology.netns import deploy
from topology.netns import runtime as netns
from topology.netns.deploy import Say
from topology.source import Source
from topology.state import LabState


def up(file: Path, kind: RuntimeKind, say: Say, warn: Say) -> LabState:
    """Deploy a file. See the runtimes for what can go wrong."""
    if kind is RuntimeKind.CONTAINERLAB:
        return containerlab.up(file)
    return deploy.up(clab.read(file), say, warn)


def down(name_or_file: str) -> str:
    """Take a lab away, also one whose `up` crashed. Returns its name.

    Raises:
        NotFound: there is no such lab.
    """
    name = name_of(name_or_file)
    try:
        lab = state.load(name)
    except NotFound:
        if state.sweep(name):  # `up` was killed before it had made anything
            return name
        raise
    except LabError:
        netns.down(name)  # its entry is damaged; what it made hangs on its name
        return name
    if lab.runtime is RuntimeKind.CONTAINERLAB:
        containerlab.down(lab)
    else:
        netns.down(name)
    return name


def name_of(name_or_file: str) -> str:
    """A lab's name, or the one that a file gives it; the file need not be right otherwise."""
    path = Path(name_or_file)
    if state.directory(name_or_file).is_dir() or not path.is_file():
        return name_or_file
    data = Source.read(path).data
    name = data.get("name") if isinstance(data, dict) else None
    if not isinstance(name, str):
        raise UsageError(f"{path} gives no lab name: name the lab itself (`meshnet lab list`)")
    return name


def is_up(lab: LabState, node: str) -> bool:
    if lab.runtime is RuntimeKind.CONTAINERLAB:
        return containerlab.is_up(lab, node)
    return netns.is_up(lab.nodes[node])


def find(node: str, lab: str | None) -> tuple[LabState, str]:
    """The lab with that node, and the node's short name: containerlab's long one does too.

    Raises:
        NotFound: none has one.
        UsageError: several have one, and `lab` does not say which.
    """
    found = state.load_all() if lab is None else [state.load(lab)]
    having = [(one, name) for one in found if (name := one.called(node)) is not None]
    if len(having) > 1:
        names = ", ".join(one.name for one, _ in having)
        raise UsageError(f"labs {names} have a node {node!r} each: say which by --lab")
    if not having:
        nodes = ", ".join(name for one in found for name in one.nodes) or "none"
        raise NotFound(f"no lab node is called {node!r} (nodes: {nodes}): see `meshnet lab list`")
    return having[0]
