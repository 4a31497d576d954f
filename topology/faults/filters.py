"""Packets between two nodes that disappear: rules of nftables in the middle."""

from __future__ import annotations

import re
from collections.abc import Iterable

from topology.faults import tools
from topology.faults.points import Point, arrivals, matches
from topology.model import Lab
from topology.state import LabState

TABLE = "meshnet_fault"
PRIORITY = -500


def drop(lab: LabState, layout: Lab, sender: str, receiver: str, verdict: str) -> None:
    """Judge what the sender sends to the receiver.

    Args:
        verdict: an nft rule without matches of addresses, such as `meta length > 1400 drop`.
    """
    found = list(matches(lab, layout, sender))
    for point in arrivals(lab, layout, receiver):
        add(point, f"{sender}-{receiver}", found, verdict)


def add(point: Point, pair: str, found: Iterable[str], verdict: str) -> None:
    """Judge the packets that one of `found` matches."""
    tools.run(point.pid, "nft", "-f", "-", stdin=_rules(point, pair, found, verdict))


def remove_all(pid: int) -> None:
    """In one node. None is not an error."""
    script = f"add table netdev {TABLE}\ndelete table netdev {TABLE}\n"
    tools.run(pid, "nft", "-f", "-", stdin=script)


def _rules(point: Point, pair: str, found: Iterable[str], verdict: str) -> str:
    """One chain a pair and kind of fault: asked again, it is replaced."""
    kind = "_".join(verdict.split()[:2])
    words = re.sub(r"\W", "_", f"{kind}_{pair}_{point.ifname}")  # nft takes no more
    base, effect = f"netdev {TABLE} {words}", f"{words}_effect"
    lines = [
        f"add table netdev {TABLE}",
        f"add chain netdev {TABLE} {effect}",
        f'add chain {base} {{ type filter hook egress device "{point.ifname}" '
        f"priority {PRIORITY}; policy accept; }}",
        f"flush chain {base}",
        f"flush chain netdev {TABLE} {effect}",
        f"add rule netdev {TABLE} {effect} {verdict}",
        # goto, not the verdict itself: a packet that two of them match is judged once
        *(f"add rule {base} {match} goto {effect}" for match in found),
    ]
    return "\n".join(lines) + "\n"
