"""Labs whose hosts are a mesh already: two clusters of two hosts, formed by the real command.

east-1 (etcd, signer) ┐                 ┌ west-1 (etcd, signer)
                      ├── br-underlay ──┤
east-2                ┘                 └ west-2
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from meshnet.host.namespace import Namespace, enter_path, enter_process
from tests.support.lab import LABS, Lab, Node, deployed
from topology import inside, state
from topology.formation import form
from topology.state import LabState

NODES = ("east-1", "east-2", "west-1", "west-2")
SWITCH = "br-underlay"
UNDERLAY = {
    "east-1": "172.31.0.11",
    "east-2": "172.31.0.12",
    "west-1": "172.31.0.21",
    "west-2": "172.31.0.22",
}
PORT = 8080
SERVE = ("python3", "-m", "http.server", str(PORT), "--bind", "::", "--directory", "/usr/share")
STORE = str(Path(__file__).with_name("store.py"))
LOG = "/var/log/meshnet/agent.log"

Json = dict[str, Any]


@attrs.frozen(kw_only=True)
class Workload:
    """An endpoint as `endpoint list` has it."""

    name: str
    cluster: str
    node: str
    id: int
    identity: int
    ipv4: str
    ipv6: str

    @classmethod
    def of(cls, row: Json) -> Workload:
        return cls(**{field.name: row[field.name] for field in attrs.fields(cls)})


@attrs.frozen
class Mesh:
    lab: Lab
    state: LabState

    def __getitem__(self, node: str) -> Node:
        return self.lab[node]

    def run(self, node: str, *argv: str) -> str:
        """One command that must succeed in a host: its stdout."""
        return inside.run(self.state, node, *argv)

    def json(self, node: str, *words: str) -> Any:
        """What `meshnet WORDS -o json` says there."""
        return json.loads(self.run(node, "meshnet", *words, "-o", "json"))

    def each(self, *words: str, nodes: Iterable[str] = NODES) -> dict[str, Any]:
        """The same on several nodes at once."""
        argv = ("meshnet", *words, "-o", "json")
        outputs = inside.run_all(self.state, dict.fromkeys(nodes, argv))
        return {node: json.loads(output) for node, output in outputs.items()}

    def start(self, node: str, name: str, command: Iterable[str] = ("sleep", "3600")) -> None:
        """An endpoint with a command of its own; there when this returns."""
        labels = ("--label", f"app={name}")
        self.run(node, "meshnet", "run", "--name", name, *labels, "--detach", "--", *command)

    def stop(self, node: str, name: str) -> None:
        self.run(node, "meshnet", "endpoint", "delete", name)

    def workload(self, node: str, name: str) -> Workload:
        return Workload.of(self.json(node, "endpoint", "show", name))

    def inside(self, endpoint: Workload, script: str) -> str:
        """A shell script in an endpoint's namespaces: its stdout."""
        return self.run(endpoint.node, "meshnet", "exec", endpoint.name, "--", "sh", "-c", script)

    def drops(self, node: str) -> dict[str, int]:
        """Reason -> packets, so far."""
        counts: dict[str, int] = {}
        for row in self.json(node, "drops"):
            counts[row["reason"]] = counts.get(row["reason"], 0) + row["packets"]
        return counts

    def etcd(self, node: str, verb: str, *words: str) -> Any:
        """`get PREFIX`, `put KEY VALUE`, `delete KEY` in a node's etcd, as that node."""
        return json.loads(self.run(node, sys.executable, STORE, verb, *words) or "null")

    def agent_pid(self, node: str) -> int:
        """Of the agent, as the host itself counts."""
        return int(self[node].path("/run/meshnet/agent.pid").read_text().split()[0])

    def kill_agent(self, node: str) -> None:
        """SIGKILL: no last word. Returns when it is dead."""
        pid = str(self.agent_pid(node))
        waiting = f"kill -9 {pid}; while grep -qs '^State:.[^Z]' /proc/{pid}/status; do :; done"
        self.run(node, "bash", "-c", waiting)

    def kill_etcd(self, node: str) -> None:
        """SIGKILL of the member that a node runs."""
        record = self[node].path("/var/lib/meshnet/etcd/etcd.pid").read_text()
        self.run(node, "kill", "-9", str(json.loads(record)["pid"]))

    def start_agent(self, node: str) -> None:
        """As `cluster init` starts it where there is no systemd. It is ready afterwards."""
        starting = (
            "from meshnet.bootstrap.agent_process import Daemon; from meshnet.config import Paths;"
            "Daemon(Paths.from_environment()).start()"
        )
        self.run(node, sys.executable, "-c", starting)
        self.run(node, "meshnet", "status", "--wait", "--timeout", "20s")


@contextlib.contextmanager
def network_of(node: Node) -> Iterator[None]:
    """This thread in a host's network: a socket made here is that host's for as long as it is."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter_process(node.pid, Namespace.NET)
        yield
    finally:
        enter_path(f"/proc/self/fd/{before}", Namespace.NET)
        os.close(before)


def eventually(check: Callable[[], Any], *, within_s: float, every_s: float = 0.1) -> float:
    """Ask until the answer is true: how many seconds that took, or a failed test."""
    began = time.monotonic()
    while not check():
        waited = time.monotonic() - began
        assert waited < within_s, f"not within {within_s} s"
        time.sleep(every_s)
    return time.monotonic() - began


@contextlib.contextmanager
def formed(purpose: str, *, init: Mapping[str, Sequence[str]] | None = None) -> Iterator[Mesh]:
    """The mesh of containerlab/two-clusters.clab.yml, without any endpoint. `init`: as for
    `form`."""
    name = f"tst-{purpose}-{os.getpid()}"
    with deployed(LABS / "two-clusters.clab.yml", name=name) as lab:
        loaded = state.load(name)
        form(loaded, lambda _: None, init=init)
        yield Mesh(lab, loaded)


@contextlib.contextmanager
def two_hosts(purpose: str, directory: Path) -> Iterator[Lab]:
    """Hosts `a` (172.30.7.1) and `b` (172.30.7.2) on one switch, in no cluster."""
    name = f"tst-{purpose}-{os.getpid()}"
    file = directory / f"{name}.clab.yml"
    file.write_text(TWO_HOSTS.format(name=name))
    with deployed(file, name=name) as lab:
        yield lab


TWO_HOSTS = """\
name: {name}
topology:
  nodes:
    sw: {{kind: bridge}}
    a: {{kind: linux, exec: ["ip addr add 172.30.7.1/24 dev eth1"]}}
    b: {{kind: linux, exec: ["ip addr add 172.30.7.2/24 dev eth1"]}}
  links:
    - endpoints: ["a:eth1", "sw:a"]
    - endpoints: ["b:eth1", "sw:b"]
"""
