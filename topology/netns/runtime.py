"""Labs of plain namespaces: no image, no container engine, a tenth of a second a host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs

from meshnet.errors import ConfigError, LabError, NotFound
from meshnet.host import capability, cgroup, process
from meshnet.host.cgroup import Cgroup
from meshnet.host.namespace import children_in_pid_namespace, opened
from meshnet.netlink import fabric
from topology import state
from topology.model import BRIDGE_KIND, HOST_KIND, Lab, LabNode, LinkEnd, RuntimeKind
from topology.netns import host
from topology.netns.host import Builder, HostPlan
from topology.state import LabState, NodeState

CGROUP = "meshnet-lab"
"""All labs' processes are below this group, a group each lab and node."""

Report = Callable[[str], None]


def lab_cgroup(lab: str) -> Cgroup:
    return Cgroup(cgroup.hierarchy() / CGROUP / lab)


def up(lab: Lab, report: Report) -> LabState:
    """Deploy it, whole or not at all.

    Args:
        report: told one line for each thing that the file asks for and is not done.

    Raises:
        ConfigError: the file needs containers.
        CapabilityMissing: not root, or no cgroup v2.
        AlreadyExists: the lab is up.
        LabError: a host, link or `exec` line failed; nothing is left.
    """
    _check(lab, report)
    capability.require_root()
    capability.require_cgroup2()
    current = LabState(
        name=lab.name,
        file=str(lab.file),
        runtime=RuntimeKind.NETNS,
        nodes={
            name: NodeState(kind=node.kind, env=node.env, labels=node.labels)
            for name, node in lab.nodes.items()
        },
    )
    state.create(current)
    try:
        return _deploy(lab, current)
    except BaseException:
        down(lab.name)
        raise


def _check(lab: Lab, report: Report) -> None:
    for node in lab.nodes.values():
        if node.kind not in (HOST_KIND, BRIDGE_KIND):
            raise ConfigError(
                f"{lab.file}: node {node.name!r} of kind {node.kind!r} needs containers: use kind "
                f"`{HOST_KIND}`, or `meshnet lab up --runtime containerlab`"
            )
    ignored = sorted({field for node in lab.nodes.values() for field in node.ignored})
    if ignored:
        report(
            f"{lab.file.name}: {', '.join(ignored)}: ignored, since hosts are namespaces of this "
            "machine"
        )


def _deploy(lab: Lab, current: LabState) -> LabState:
    with contextlib.ExitStack() as builders_end:
        builders: dict[str, Builder] = {}
        for node in lab.nodes.values():
            builders[node.name] = Builder.start(_plan(lab, node))
            builders_end.callback(builders[node.name].close)
        pids = {name: builder.await_init() for name, builder in builders.items()}
        current = _record(current, pids)
        _wire(lab, pids)
        for builder in builders.values():
            builder.run_execs()
        for builder in builders.values():
            builder.await_execs()
    _write_hosts(lab, pids)
    current = attrs.evolve(current, complete=True)
    state.save(current)
    return current


def _plan(lab: Lab, node: LabNode) -> HostPlan:
    group = lab_cgroup(lab.name).child(node.name)
    group.create()
    stage = state.directory(lab.name) / "root"
    stage.mkdir(exist_ok=True)
    return HostPlan(
        lab=lab.name,
        node=node,
        cgroup=group,
        cgroups=cgroup.hierarchy(),
        stage=stage,
        env=host.environment(lab.name, node.name, node.env),
    )


def _record(current: LabState, pids: Mapping[str, int]) -> LabState:
    nodes = {
        name: attrs.evolve(node, pid=pids[name], start_time=process.start_time(pids[name]))
        for name, node in current.nodes.items()
    }
    current = attrs.evolve(current, nodes=nodes)
    state.save(current)
    return current


def netns(pid: int) -> str:
    return f"/proc/{pid}/ns/net"


def _wire(lab: Lab, pids: Mapping[str, int]) -> None:
    for node in lab.nodes.values():
        fabric.prepare(netns(pids[node.name]))
        if node.is_bridge:
            fabric.create_bridge(netns(pids[node.name]), node.name)

    def cable_end(end: LinkEnd) -> fabric.CableEnd:
        return fabric.CableEnd(
            netns=netns(pids[end.node]),
            ifname=end.ifname,
            mac=end.mac,
            addresses=end.addresses,
            bridge=end.node if lab.nodes[end.node].is_bridge else None,
        )

    for link in lab.links:
        fabric.connect(cable_end(link.one), cable_end(link.other), mtu=link.mtu)


def _write_hosts(lab: Lab, pids: Mapping[str, int]) -> None:
    """/etc/hosts of every host names every host by all its addresses."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    for name, pid in pids.items():
        for port in fabric.ports(netns(pid)):
            lines += [f"{address} {lab.nodes[name].hostname}" for address in port.addresses]
    text = "\n".join(lines) + "\n"
    for pid in pids.values():
        Path(f"/proc/{pid}/root/etc/hosts").write_text(text)


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
    return node.pid is not None and process.start_time(node.pid) == node.start_time


def live_pid(lab: LabState, node: str) -> int:
    """The PID of a node's init.

    Raises:
        NotFound: the lab has no such node.
        LabError: the node is not up.
    """
    found = lab.nodes.get(node)
    if found is None:
        raise NotFound(f"lab {lab.name!r} has no node {node!r}: it has {', '.join(lab.nodes)}")
    if found.pid is None or not is_up(found):
        raise LabError(
            f"node {node!r} of lab {lab.name!r} is not up: `meshnet lab down {lab.name}`, then "
            f"`meshnet lab up {lab.file}`"
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
