"""Labs of plain namespaces that are up: their hosts entered, stopped, and taken away."""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable, Iterator

from meshnet.errors import LabError, NotFound, UsageError
from meshnet.host import cgroup, process
from meshnet.host.cgroup import Cgroup
from meshnet.host.namespace import children_in_pid_namespace, opened
from topology import state
from topology.model import MACHINE_KIND
from topology.netns import host
from topology.state import LabState, NodeState

CGROUP = "meshnet-lab"
"""All labs' processes are below this group, a group each lab and node."""


def lab_cgroup(lab: str) -> Cgroup:
    return Cgroup(cgroup.hierarchy() / CGROUP / lab)


MACHINE_NETNS = "/proc/self/ns/net"


def netns(pid: int) -> str:
    return f"/proc/{pid}/ns/net"


def down(lab: str) -> None:
    """Take everything away that `up` made, also what a crashed one left.

    Raises:
        Timeout: a process cannot be killed (it is stuck in the kernel).
    """
    group = lab_cgroup(lab)
    group.kill()
    group.remove()
    with contextlib.suppress(OSError):  # other labs are there
        group.path.parent.rmdir()
    state.remove(lab)


def is_up(node: NodeState) -> bool:
    if node.kind == MACHINE_KIND:
        return True
    return node.pid is not None and process.start_time(node.pid) == node.start_time


class Condition(enum.StrEnum):
    UP = "up"
    FROZEN = "frozen"
    DEAD = "dead"


def condition(lab: LabState, node: str) -> Condition:
    if not is_up(lab.nodes[node]):
        return Condition.DEAD
    group = lab_cgroup(lab.name).child(node)  # the machine itself has none
    return Condition.FROZEN if group.path.exists() and group.is_frozen() else Condition.UP


def live_pid(lab: LabState, node: str) -> int:
    """The PID of a node's init.

    Raises:
        NotFound: the lab has no such node.
        UsageError: it is the machine itself.
        LabError: the node is not up.
    """
    found = lab.nodes.get(node)
    if found is None:
        raise NotFound(f"lab {lab.name!r} has no node {node!r}: it has {', '.join(lab.nodes)}")
    if found.kind == MACHINE_KIND:
        raise UsageError(
            f"node {node!r} of lab {lab.name!r} is this machine itself: run the command here"
        )
    if found.pid is None or not is_up(found):
        raise LabError(
            f"node {node!r} of lab {lab.name!r} is not up: `meshnet lab up {lab.file}` makes it "
            "again"
        )
    return found.pid


@contextlib.contextmanager
def entrance(lab: LabState, node: str) -> Iterator[Callable[[], None]]:
    """For a command in a host: what is forked in this block, and calls the function that it
    gives, is in the host altogether.

    Raises:
        NotFound, LabError: see `live_pid`.
    """
    pid = live_pid(lab, node)
    group = lab_cgroup(lab.name).child(node)
    env = host.environment(lab.name, node, lab.nodes[node].env)

    if group.is_frozen():
        raise LabError(f"node {node!r} is frozen: `meshnet lab fault {lab.name} heal` thaws it")

    with opened(pid) as init, children_in_pid_namespace(init):

        def enter() -> None:
            host.enter(init, group)
            os.environ.clear()
            os.environ.update(env)

        yield enter


def open_terminal(lab: LabState, node: str) -> tuple[int, int]:
    """Master and slave of a pseudo terminal of that host."""
    return host.open_terminal(live_pid(lab, node))


def kill(lab: LabState, node: str) -> None:
    """End a host as a power cut would: its init, and everything with it."""
    live_pid(lab, node)
    lab_cgroup(lab.name).child(node).kill()


def freeze(lab: LabState, node: str, frozen: bool) -> None:
    """Stop every process of a host where it stands; its links stay up."""
    live_pid(lab, node)
    lab_cgroup(lab.name).child(node).freeze(frozen)
