"""What a host may use of the machine: cpu, cpu-set and memory, by cgroup v2's controllers.

A hybrid machine has its controllers in cgroup v1, where a lab has no groups: there the
limits are not set, and `up` says so. Source: kernel, admin-guide/cgroup-v2.rst
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from meshnet.host.cgroup import Cgroup
from topology.model import Limits

CPU_PERIOD_US = 100_000


def wanted(limits: Limits) -> dict[str, tuple[str, str]]:
    """Controller -> its file and what to write."""
    found = {}
    if limits.cpu is not None:
        found["cpu"] = ("cpu.max", f"{round(limits.cpu * CPU_PERIOD_US)} {CPU_PERIOD_US}")
    if limits.cpu_set is not None:
        found["cpuset"] = ("cpuset.cpus", limits.cpu_set)
    if limits.memory is not None:
        found["memory"] = ("memory.max", str(limits.memory))
    return found


def controllers(hierarchy: Path) -> frozenset[str]:
    """What this machine's cgroup v2 can limit."""
    return frozenset((hierarchy / "cgroup.controllers").read_text().split())


def apply(limits: Limits, group: Cgroup, hierarchy: Path, offered: Collection[str]) -> None:
    """Set those that the machine offers. The group is there and below `hierarchy`.

    Raises:
        OSError: the kernel does not take a value (a CPU that is not there).
    """
    possible = {name: words for name, words in wanted(limits).items() if name in offered}
    above = [path for path in group.path.parents if path.is_relative_to(hierarchy)]
    for name, (file, value) in possible.items():
        for path in reversed(above):
            (path / "cgroup.subtree_control").write_text(f"+{name}")
        (group.path / file).write_text(value)
