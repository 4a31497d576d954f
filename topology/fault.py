"""Faults between the nodes of a namespace lab: what networks do, on purpose.

A fault works in the middle, not in the hosts: on the switch's port where there is a switch,
so that the hosts' own programs (tcx runs before netfilter's ingress) cannot pass by it;
without one, on the sender's interface, at its very last step.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from meshnet.errors import CapabilityMissing, LabError, NotFound, UsageError
from meshnet.host.namespace import Namespace, enter_process
from meshnet.netlink import fabric
from topology import clab
from topology.model import Lab
from topology.netns import runtime
from topology.state import LabState

TABLE = "meshnet_fault"
PRIORITY = -500


@attrs.frozen(kw_only=True)
class Point:
    """A place that all packets from one node pass: an interface, in some node's namespace."""

    pid: int
    ifname: str
    hook: str
    """`ingress` on a switch's port, `egress` on the sender's own interface."""


def cut(lab: LabState, one: str, other: str, *, one_way: bool = False) -> None:
    """Nothing passes from one node to the other, nor back unless `one_way`."""
    _apply(lab, one, other, "drop", one_way=one_way)


def lose(lab: LabState, one: str, other: str, percent: float, *, one_way: bool = False) -> None:
    """A share of the packets between them disappears, at random."""
    verdict = f"numgen random mod 10000 < {round(percent * 100)} drop"
    _apply(lab, one, other, verdict, one_way=one_way)


def limit(lab: LabState, one: str, other: str, bits: int, *, one_way: bool = False) -> None:
    """More than `bits` a second between them is dropped, after a burst of 50 ms or 256 kB."""
    burst = max(bits // 8 // 20, 256 * 1024)
    verdict = f"limit rate over {bits // 8} bytes/second burst {burst} bytes drop"
    _apply(lab, one, other, verdict, one_way=one_way)


def heal(lab: LabState) -> None:
    """All faults of the lab end; frozen nodes go on. Killed ones stay dead."""
    for name, node in lab.nodes.items():
        if node.pid is not None and runtime.is_up(node):
            runtime.freeze(lab, name, False)
            _nft(node.pid, f"add table netdev {TABLE}\ndelete table netdev {TABLE}\n")


def percent(text: str) -> float:
    """`20%` -> 20.0"""
    try:
        value = float(text.removesuffix("%"))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a share: write 20%") from error
    if not 0 < value <= 100:
        raise UsageError(f"{text!r} is not between 0 and 100 %")
    return value


def bits_per_second(text: str) -> int:
    """`10mbit` -> 10 000 000, with tc's units."""
    for unit, factor in (("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3), ("bit", 1)):
        number = text.lower().removesuffix(unit)
        if number != text.lower() and number.replace(".", "", 1).isdigit():
            return round(float(number) * factor)
    raise UsageError(f"{text!r} is not a rate: write 10mbit, 500kbit or 1gbit")


def _apply(lab: LabState, one: str, other: str, verdict: str, *, one_way: bool) -> None:
    for node in (one, other):
        runtime.live_pid(lab, node)
    if one == other:
        raise UsageError(f"a fault is between two nodes, not {one!r} and itself")
    layout = clab.read(Path(lab.file))
    for sender, receiver in ((one, other), (other, one))[: 1 if one_way else 2]:
        matches = list(_matches(lab, layout, receiver))
        points = list(_points(lab, layout, sender))
        if not points:
            raise NotFound(f"node {sender!r} has no link in {lab.file}, so nothing can be cut")
        for point in points:
            _nft(point.pid, _rules(point, f"{sender}-{receiver}", matches, verdict))


def _points(lab: LabState, layout: Lab, sender: str) -> Iterator[Point]:
    """Where packets of the sender pass, one for each of its links."""
    for link in layout.links:
        for own, far in (link.ends, link.ends[::-1]):
            if own.node != sender:
                continue
            if layout.nodes[far.node].is_bridge:
                pid = runtime.live_pid(lab, far.node)
                yield Point(pid=pid, ifname=far.ifname, hook="ingress")
            else:
                pid = runtime.live_pid(lab, sender)
                yield Point(pid=pid, ifname=own.ifname, hook="egress")


def _matches(lab: LabState, layout: Lab, receiver: str) -> Iterator[str]:
    """What tells packets to the receiver: its MACs on a switch, its addresses behind a router."""
    linked = {end.ifname for link in layout.links for end in link.ends if end.node == receiver}
    for port in fabric.ports(runtime.netns(runtime.live_pid(lab, receiver))):
        if port.ifname in linked:
            yield f"ether daddr {port.mac}"
            for address in port.addresses:
                yield f"{'ip' if address.version == 4 else 'ip6'} daddr {address}"


def _rules(point: Point, pair: str, matches: Iterable[str], verdict: str) -> str:
    """One chain a pair and kind of fault: asked again, it is replaced."""
    words = re.sub(r"\W", "_", f"{verdict.split()[0]}_{pair}_{point.ifname}")  # nft takes no more
    base, effect = f"netdev {TABLE} {words}", f"{words}_effect"
    lines = [
        f"add table netdev {TABLE}",
        f"add chain netdev {TABLE} {effect}",
        f'add chain {base} {{ type filter hook {point.hook} device "{point.ifname}" '
        f"priority {PRIORITY}; policy accept; }}",
        f"flush chain {base}",
        f"flush chain netdev {TABLE} {effect}",
        f"add rule netdev {TABLE} {effect} {verdict}",
        # goto, not the verdict itself: a packet that two of them match is judged once
        *(f"add rule {base} {match} goto {effect}" for match in matches),
    ]
    return "\n".join(lines) + "\n"


def _nft(pid: int, script: str) -> None:
    """Run nft in a node's network namespace, with the machine's nft."""
    argv: Sequence[str] = ("nft", "-f", "-")
    try:
        done = subprocess.run(
            argv,
            input=script,
            text=True,
            capture_output=True,
            check=False,
            preexec_fn=lambda: enter_process(pid, Namespace.NET),
        )
    except FileNotFoundError as error:
        raise CapabilityMissing("nft is not installed: `apt install nftables`") from error
    if done.returncode:
        reason = next(iter(done.stderr.strip().splitlines()), "no reason given")
        raise LabError(f"nft refused the fault: {reason}; it needs NF_TABLES_NETDEV in the kernel")
