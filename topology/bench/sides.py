"""The two things that are compared: a mesh of ours, and the kernel's vxlan device with routes.

Either is two hosts with a workload on each, behind a veth; `Side.load` runs the load generator
in the first one's workload against the second one's.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs

from meshnet.errors import LabError
from topology import inside
from topology.formation import form
from topology.state import LabState

SOURCE = Path(__file__).with_name("flow.c")
BUILD = Path(__file__).resolve().parents[2] / "build" / "bench"
PORT = "9000"
CPUS = ("0", "1")
"""Of the sender and of the receiver."""
VXLAN_PORT = "4790"
"""Not ours, so that the two cannot be taken for each other in a capture."""


def build_load() -> Path:
    """The load generator, where lab hosts see it. Raises LabError."""
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / "flow"
    command = ["clang", "-O2", "-Wall", "-o", str(program), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{SOURCE.name} does not compile: {done.stderr}")
    return program


@attrs.frozen
class Side:
    lab: LabState
    node: str
    enter: tuple[str, ...]
    """Before a command of the sending workload."""
    address: str
    """Of the receiving one."""
    program: Path

    def load(self, *words: str) -> float:
        """What the load generator says; `words` of it before and after the address."""
        kind, *rest = words
        pinned = ("taskset", "-c", CPUS[0], str(self.program), kind, self.address, *rest)
        return float(inside.run(self.lab, self.node, *self.enter, *pinned))

    def stream(self, milliseconds: int) -> float:
        """Bytes a second."""
        return self.load("stream", PORT, str(milliseconds))

    def round_trips(self, milliseconds: int) -> float:
        """A second, of one byte each."""
        return self.load("rr", PORT, str(milliseconds))


def mesh(lab: LabState, program: Path, say: Callable[[str], None]) -> Side:
    """One cluster of ours-1 and ours-2, with an endpoint on each."""
    form(lab, say)
    serve = ("taskset", "-c", CPUS[1], str(program), "serve", PORT)
    start = ("meshnet", "run", "--detach", "--name")
    inside.run(lab, "ours-2", *start, "sink", "--", *serve)
    inside.run(lab, "ours-1", *start, "source", "--", "sleep", "infinity")
    shown = inside.run(lab, "ours-2", "meshnet", "endpoint", "list", "-o", "json")
    address = _one_address(shown)
    enter = ("meshnet", "exec", "source", "--")
    _until_reached(lab, "ours-1", enter, address)
    return Side(lab, "ours-1", enter, address, program)


def _one_address(listed: str) -> str:
    (row,) = json.loads(listed)
    address: str = row["ipv4"]
    return address


def plain(lab: LabState, program: Path) -> Side:
    """plain-1 and plain-2: namespaces behind veths, routed through a vxlan device."""
    for number in (1, 2):
        other = 3 - number
        script = f"""
        sysctl -qw net.ipv4.ip_forward=1
        ip link add tunnel type vxlan id 42 local 172.32.1.{number} remote 172.32.1.{other} \
            dstport {VXLAN_PORT} dev eth1
        ip addr add 10.98.0.{number}/24 dev tunnel
        ip link set tunnel mtu 1450 up
        ip netns add box
        ip link add box mtu 1450 type veth peer name eth0 mtu 1450 netns box
        ip addr add 10.99.{number}.1/24 dev box
        ip link set box up
        ip -n box link set lo up
        ip -n box addr add 10.99.{number}.2/24 dev eth0
        ip -n box link set eth0 up
        ip -n box route add default via 10.99.{number}.1
        ip route add 10.99.{other}.0/24 via 10.98.0.{other}
        """
        inside.run(lab, f"plain-{number}", "sh", "-ec", script)
    serve = f"taskset -c {CPUS[1]} {program} serve {PORT} >/dev/null 2>&1 </dev/null &"
    inside.run(lab, "plain-2", "ip", "netns", "exec", "box", "sh", "-c", serve)
    enter = ("ip", "netns", "exec", "box")
    _until_reached(lab, "plain-1", enter, "10.99.2.2")
    return Side(lab, "plain-1", enter, "10.99.2.2", program)


def _until_reached(lab: LabState, node: str, enter: tuple[str, ...], address: str) -> None:
    """Raises LabError: not within ten seconds."""
    ping = f"for i in $(seq 20); do ping -q -c 1 -W 0.5 {address} >/dev/null && exit; done; exit 1"
    inside.run(lab, node, *enter, "sh", "-c", ping)
