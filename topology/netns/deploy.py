"""A lab of plain namespaces comes up, or becomes what its file now says.

No image, no container engine, a tenth of a second a host.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import attrs

from meshnet.errors import AlreadyExists, ConfigError, LabError, NotFound
from meshnet.host import capability, cgroup, process
from meshnet.netlink import fabric
from topology import reconcile, stages, state
from topology.clab_links import DEFAULT_MTU
from topology.model import (
    BRIDGE_KIND,
    HOST_KIND,
    MACHINE_KIND,
    Lab,
    LabNode,
    Link,
    LinkEnd,
    RuntimeKind,
    Stage,
    long_name,
)  # fmt: skip
from topology.netns import host, limits
from topology.netns.host import Builder, HostPlan
from topology.netns.runtime import MACHINE_NETNS, down, is_up, lab_cgroup, netns
from topology.reconcile import Changes
from topology.stages import Step
from topology.state import LabState, NodeState

Say = Callable[[str], None]


def up(lab: Lab, say: Say, warn: Say) -> LabState:
    """Deploy it, whole or not at all; one that is up becomes what the file says.

    Args:
        say: told what the file reaches of this machine, and what changes.
        warn: told one line for each thing that the file asks for and is not done.

    Raises:
        ConfigError: the file needs containers.
        CapabilityMissing: not root, or no cgroup v2.
        AlreadyExists: a lab of that name is there from another file, or crashed on its way.
        LabError: a host, link or `exec` line failed. Of a new lab nothing is left; of one
            that was up, the nodes that were to be made are missing.
    """
    _check(lab)
    capability.require_root()
    capability.require_cgroup2()
    _tell(lab, say, warn)
    current = LabState(
        name=lab.name,
        file=str(lab.file),
        runtime=RuntimeKind.NETNS,
        nodes={},
        prefix=lab.prefix,
    )
    try:
        there = state.load(lab.name)
    except NotFound:
        state.create(current)
        try:
            return _Deployment(lab, current).run(reconcile.changes(current, lab, ()))
        except BaseException:
            down(lab.name)
            raise
    if there.file != current.file or there.runtime is not RuntimeKind.NETNS:
        raise AlreadyExists(
            f"lab {lab.name!r} is up already, from {there.file} ({there.runtime}): take it away "
            f"with `meshnet lab down {lab.name}`"
        )
    with state.changing(lab.name) as there:
        return _change(lab, there, say)


def _check(lab: Lab) -> None:
    for node in lab.nodes.values():
        if node.kind not in (HOST_KIND, BRIDGE_KIND, MACHINE_KIND):
            raise ConfigError(
                f"{lab.file}: node {node.name!r} of kind {node.kind!r} needs containers: use kind "
                f"`{HOST_KIND}`, or `meshnet lab up --runtime containerlab`"
            )
        if node.is_machine and (node.exec or node.binds or node.sysctls):
            raise ConfigError(
                f"{lab.file}: node {node.name!r} of kind `{MACHINE_KIND}` is this machine, and a "
                "lab changes nothing of it: leave out exec, binds and sysctls, or use "
                "`meshnet lab up --runtime containerlab`"
            )
    for link in lab.links:
        if all(lab.nodes[end.node].is_machine for end in link.ends):
            raise ConfigError(
                f"{lab.file}: link {link} has both ends on this machine: a lab leaves nothing on "
                "it, so one end must be a lab host's"
            )


def _tell(lab: Lab, say: Say, warn: Say) -> None:
    for node in lab.nodes.values():
        for bind in node.binds:
            how = " (read-only)" if bind.read_only else ""
            say(f"{node.name}: {bind.target} is {bind.source} of this machine{how}")
    ignored = sorted({field for node in lab.nodes.values() for field in node.ignored})
    if ignored:
        warn(
            f"{lab.file.name}: {', '.join(ignored)}: ignored, since hosts are namespaces of this "
            "machine"
        )
    offered = limits.controllers(cgroup.hierarchy())
    asked = {name for node in lab.nodes.values() for name in limits.wanted(node.limits)}
    if asked - offered:
        warn(
            f"{lab.file.name}: {', '.join(sorted(asked - offered))}: not limited, since this "
            "machine's cgroup v2 has no such controller (they are in v1: boot with "
            "systemd.unified_cgroup_hierarchy=1)"
        )
    if lab.unsaid_mtu:
        say(
            f"{lab.file.name}: links without `mtu` have {DEFAULT_MTU} here, since containerlab's "
            "9500 hides MTU faults"
        )


def _change(lab: Lab, there: LabState, say: Say) -> LabState:
    alive = {name for name, node in there.nodes.items() if is_up(node)}
    changes = reconcile.changes(there, lab, alive)
    if changes.none:
        say(f"lab {lab.name} is what {lab.file.name} says already")
        return there
    for words, names in (("taking away", changes.gone), ("making", changes.fresh)):
        if names:
            say(f"{words} {', '.join(names)}")
    for link in changes.plugged:
        say(f"laying {link}")
    deployment = _Deployment(lab, there)
    try:
        deployment.forget(changes)
        return deployment.run(changes)
    except BaseException:
        deployment.kill(changes.fresh)
        raise


class _Deployment:
    """One `up` at work; `current` is always what is there."""

    def __init__(self, lab: Lab, current: LabState) -> None:
        self._lab = lab
        self._current = current
        self._builders: dict[str, Builder] = {}

    def run(self, changes: Changes) -> LabState:
        """Bring up what is missing, stage by stage."""
        self._record(
            {
                node.name: NodeState(kind=node.kind, env={}, labels=node.labels)
                for node in self._lab.nodes.values()
                if node.is_machine
            }
        )
        with contextlib.ExitStack() as builders_end:
            for wave in stages.waves(self._lab):
                fresh = [step for step in wave if isinstance(step, Step)
                         and step.node in changes.fresh
                         and not self._lab.nodes[step.node].is_machine]  # fmt: skip
                for step in fresh:
                    if step.stage is Stage.CREATE:
                        builder = Builder.start(self._plan(self._lab.nodes[step.node]))
                        self._builders[step.node] = builder
                        builders_end.callback(builder.close)
                    elif step.stage is Stage.CONFIGURE:
                        self._builders[step.node].run_execs()
                self._prepare(step.node for step in fresh if step.stage is Stage.CREATE)
                for link in wave:
                    if isinstance(link, Link) and link in changes.plugged:
                        self._connect(link)
                for step in fresh:
                    if step.stage is Stage.CONFIGURE:
                        self._builders[step.node].await_execs()
        self._write_hosts()
        self._save(
            complete=True,
            nodes={name: self._with_addresses(name) for name in self._current.nodes},
        )
        return self._current

    def forget(self, changes: Changes) -> None:
        """Take away what shall be no more, and what shall be made anew."""
        for name in changes.gone:
            self.kill([name])
        for node, ifname in changes.unplugged:
            fabric.disconnect(self._netns(node), ifname)
        self._save(
            nodes={n: s for n, s in self._current.nodes.items() if n in self._lab.nodes},
            links=tuple(
                link
                for link in self._current.links
                if not {link.one, link.other} & set(changes.unplugged)
                and not {link.one[0], link.other[0]} & set(changes.gone)
            ),
        )

    def kill(self, names: Iterable[str]) -> None:
        for name in names:
            group = lab_cgroup(self._lab.name).child(name)
            group.kill()
            group.remove()

    def _save(self, **changes: Any) -> None:
        self._current = attrs.evolve(self._current, **changes)
        state.save(self._current)

    def _record(self, nodes: Mapping[str, NodeState]) -> None:
        """In the file's order."""
        if nodes:
            unordered = {**self._current.nodes, **nodes}
            self._save(nodes={n: unordered[n] for n in self._lab.nodes if n in unordered})

    def _plan(self, node: LabNode) -> HostPlan:
        hierarchy = cgroup.hierarchy()
        group = lab_cgroup(self._lab.name).child(node.name)
        group.create()
        try:
            limits.apply(node.limits, group, hierarchy, limits.controllers(hierarchy))
        except OSError as error:
            raise LabError(f"node {node.name!r}: limits: {error}") from error
        stage = state.directory(self._lab.name) / "root"
        stage.mkdir(exist_ok=True)
        return HostPlan(
            lab=self._lab.name,
            node=node,
            cgroup=group,
            cgroups=hierarchy,
            stage=stage,
            env=host.environment(self._lab.name, node.name, node.env),
        )

    def _prepare(self, names: Iterable[str]) -> None:
        """The inits are there: record them, before anything hangs on them."""
        made: dict[str, NodeState] = {}
        for name in names:
            node = self._lab.nodes[name]
            pid = self._builders[name].await_init()
            made[name] = NodeState(
                kind=node.kind,
                env=node.env,
                labels=node.labels,
                definition=reconcile.definition(node),
                pid=pid,
                start_time=process.start_time(pid),
            )
        self._record(made)
        for name in made:
            fabric.prepare(self._netns(name))
            if self._lab.nodes[name].is_bridge:
                fabric.create_bridge(self._netns(name), name)

    def _connect(self, link: Link) -> None:
        one, other = (self._cable_end(end) for end in link.ends)
        fabric.connect(one, other, mtu=link.mtu)
        self._save(links=(*self._current.links, reconcile.link_state(link)))

    def _cable_end(self, end: LinkEnd) -> fabric.CableEnd:
        before = self._current.nodes[end.node].addresses.get(end.ifname, ())
        return fabric.CableEnd(
            netns=self._netns(end.node),
            ifname=end.ifname,
            mac=end.mac,
            addresses=end.addresses or tuple(map(ip_interface, before)),
            bridge=end.node if self._lab.nodes[end.node].is_bridge else None,
        )

    def _netns(self, node: str) -> str:
        found = self._current.nodes[node]
        return MACHINE_NETNS if found.pid is None else netns(found.pid)

    def _with_addresses(self, name: str) -> NodeState:
        """A node as it is now, with the addresses of its links."""
        node = self._current.nodes[name]
        if node.kind != HOST_KIND:
            return node
        ends = (end for link in self._lab.links for end in link.ends)
        linked = {end.ifname for end in ends if end.node == name}
        return attrs.evolve(node, addresses=fabric.addresses(self._netns(name), linked))

    def _write_hosts(self) -> None:
        """/etc/hosts of every host names every host by all its addresses."""
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
        pids: Mapping[str, int] = {
            name: node.pid for name, node in self._current.nodes.items() if node.pid is not None
        }
        for name, pid in pids.items():
            names = (self._lab.nodes[name].hostname,
                     long_name(self._lab.prefix, self._lab.name, name))  # fmt: skip
            words = " ".join(dict.fromkeys(names))
            for port in fabric.ports(netns(pid)):
                lines += [f"{address} {words}" for address in port.addresses]
        text = "\n".join(lines) + "\n"
        for pid in pids.values():
            Path(f"/proc/{pid}/root/etc/hosts").write_text(text)
