"""Labs by containerlab itself: the very same file, handed to its own command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import attrs

from meshnet.errors import ConfigError, LabError
from topology import clab, state
from topology.model import RuntimeKind, long_name
from topology.state import LabState, NodeState

INSTALL = "https://containerlab.dev/install/"


def up(file: Path) -> LabState:
    """Deploy it, with containerlab's own output on stderr.

    Raises:
        ConfigError: containerlab is not installed, or the file is wrong.
        AlreadyExists: the lab is up.
        LabError: containerlab failed; what it had made is destroyed.
    """
    _require("containerlab")
    lab = clab.read(file)
    current = LabState(
        name=lab.name,
        file=str(lab.file),
        runtime=RuntimeKind.CONTAINERLAB,
        nodes={
            name: NodeState(kind=node.kind, env=node.env, labels=node.labels)
            for name, node in lab.nodes.items()
        },
        prefix=lab.prefix,
    )
    state.create(current)
    try:
        _run("containerlab", "deploy", "-t", str(lab.file))
        current = attrs.evolve(current, nodes=_with_pids(current), complete=True)
        state.save(current)
    except BaseException:
        down(current)
        raise
    return current


def down(lab: LabState) -> None:
    _require("containerlab")
    _run("containerlab", "destroy", "-t", lab.file, "--cleanup")
    state.remove(lab.name)


def container(lab: LabState, node: str) -> str:
    """containerlab's name for it."""
    return long_name(lab.prefix, lab.name, node)


def exec_argv(lab: LabState, node: str, command: list[str], *, tty: bool) -> list[str]:
    """The command that runs `command` in a node."""
    flags = ["-i", "-t"] if tty else ["-i"]
    return ["docker", "exec", *flags, container(lab, node), *command]


def _with_pids(lab: LabState) -> dict[str, NodeState]:
    """The nodes with their containers' processes; a bridge is the machine's and has none."""
    return {name: attrs.evolve(node, pid=_pid(lab, name)) for name, node in lab.nodes.items()}


def _pid(lab: LabState, node: str) -> int | None:
    found = subprocess.run(
        ["docker", "inspect", container(lab, node)], capture_output=True, text=True, check=False
    )
    if found.returncode:
        return None
    return int(json.loads(found.stdout)[0]["State"]["Pid"]) or None


def is_up(lab: LabState, node: str) -> bool:
    """A container runs, a bridge exists."""
    if lab.nodes[node].kind == "bridge":
        return Path("/sys/class/net", node).exists()
    return shutil.which("docker") is not None and _pid(lab, node) is not None


def _require(command: str) -> None:
    if shutil.which(command) is None:
        raise ConfigError(
            f"{command} is not installed: see {INSTALL}, or leave out `--runtime containerlab`"
        )


def _run(*argv: str) -> None:
    status = subprocess.run(argv, stdout=2, check=False, env=os.environ).returncode
    if status:
        raise LabError(f"`{' '.join(argv)}` failed with status {status}: see its output above")
