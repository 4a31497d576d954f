"""Labs for tests: deployed by the real command, always taken down, and nothing left behind.

with deployed(LABS / "two-clusters.clab.yml") as lab:
    lab["east-1"].meshnet("cluster", "init", "east")
    assert lab["east-1"].exec("ping -c1 west-1").returncode == 0
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from meshnet.host.process import start_time

MESHNET = Path(sys.prefix) / "bin" / "meshnet"
LABS = Path(__file__).parents[2] / "containerlab"
STATE = Path("/run/meshnet-labs")
COMMAND_TIMEOUT_S = 60.0

Command = str | Sequence[str]


def meshnet(
    *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S, stdin: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command itself, outside of any lab."""
    done = subprocess.run(
        [str(MESHNET), *arguments], capture_output=True, timeout=timeout_s, check=False, input=stdin
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


@attrs.frozen
class Node:
    """One lab host."""

    lab: str
    name: str
    pid: int
    """Of its init, outside."""

    def argv(self, command: Command) -> list[str]:
        """What runs a command in it: for tests that start their own processes."""
        words = shlex.split(command) if isinstance(command, str) else list(command)
        return [str(MESHNET), "lab", "exec", self.name, "--lab", self.lab, "--", *words]

    def exec(
        self, command: Command, *, check: bool = False, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it: words, no shell (`sh -c '...'` where one is wanted)."""
        done = subprocess.run(
            self.argv(command), capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode:
            raise AssertionError(
                f"{self.name}: {command!r} ended with {done.returncode}: "
                f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return done

    def meshnet(
        self, *arguments: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run the real command in it."""
        return self.exec(["meshnet", *arguments], check=check, timeout_s=timeout_s)

    def path(self, inside: str) -> Path:
        """A file of the host, as seen from outside."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")


@attrs.frozen
class Lab:
    name: str
    file: Path
    nodes: Mapping[str, Node]
    namespaces: frozenset[str]
    """`net:[4026532001]`...: all that its hosts were made of."""

    def __getitem__(self, node: str) -> Node:
        return self.nodes[node]

    def fault(self, *words: str) -> None:
        done = meshnet("lab", "fault", self.name, *words)
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def deployed(file: Path, *, name: str | None = None) -> Iterator[Lab]:
    """Deploy a file under a name of its own, so that tests and a demo do not meet.

    Its `binds` must be absolute: it is deployed from a copy.
    """
    name = name or f"{lab_name(file)}-{os.getpid()}"
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / file.name
        copy.write_text(re.sub(r"(?m)^name:.*$", f"name: {name}", file.read_text(), count=1))
        try:
            done = meshnet("lab", "up", str(copy))
            assert done.returncode == 0, done.stderr
            lab = found(name)
            yield lab
            lived = inhabitants(lab)
        finally:
            meshnet("lab", "down", name)
    left = leftovers(name, lived)
    assert not left, f"lab {name} left {left}"


def lab_name(file: Path) -> str:
    match = re.search(r"(?m)^name:\s*(\S+)", file.read_text())
    assert match, f"{file} has no name"
    return match[1]


def found(name: str) -> Lab:
    """A lab that is up."""
    state = json.loads((STATE / name / "lab.json").read_text())
    pids = {node: entry["pid"] for node, entry in state["nodes"].items() if entry["pid"]}
    return Lab(
        name=name,
        file=Path(state["file"]),
        nodes={node: Node(name, node, pid) for node, pid in pids.items()},
        namespaces=frozenset(
            os.readlink(f"/proc/{pid}/ns/{kind}")
            for pid in pids.values()
            for kind in ("net", "mnt", "pid", "uts", "cgroup")
        ),
    )


def inhabitants(lab: Lab) -> dict[int, int]:
    """Every process in the lab's namespaces, with its start time. Asked while the lab is up:
    the kernel gives the numbers of namespaces that have gone to new ones at once."""
    found: dict[int, int] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended while we looked
            if {os.readlink(link) for link in (directory / "ns").iterdir()} & lab.namespaces:
                pid = int(directory.name)
                started = start_time(pid)
                if started is not None:
                    found[pid] = started
    return found


def leftovers(name: str, lived: Mapping[int, int] | None = None) -> list[str]:
    """What is there of a lab that should be gone: processes, links, mounts, cgroups, pins,
    entries.

    Namespaces need no look of their own: one lives by its processes or by a mount.

    Args:
        lived: processes that were in it, as `inhabitants` gives them.
    """
    left = [f"process {pid}" for pid in _processes(name)]
    left += [f"process {pid}" for pid, born in (lived or {}).items() if start_time(pid) == born]
    for root in (STATE, Path("/run/netns"), Path("/sys/fs/bpf")):
        left += [f"entry {path}" for path in root.glob(f"*{name}*")]
        left += [f"entry {path}" for path in root.glob(f".{name}*")]
    cgroups = Path("/sys/fs/cgroup")
    left += [f"cgroup {path}" for path in cgroups.glob(f"**/meshnet-lab/{name}")]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    left += [f"mount {line}" for line in mounts if name in line]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    left += [f"link {line}" for line in links.splitlines() if name in line]
    return left


def _processes(name: str) -> Iterator[int]:
    """Processes that carry the lab's name in their environment."""
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended while we looked
            environment = (directory / "environ").read_bytes().split(b"\0")
            if f"MESHNET_LAB={name}".encode() in environment:
                yield int(directory.name)
