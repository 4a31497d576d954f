"""What a lab that is up is like now: which nodes run, how packets travel, what is broken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from meshnet.errors import LabError, NotFound
from topology import inside, state
from topology.faults import book
from topology.formation import CLUSTER
from topology.model import Lab, RuntimeKind
from topology.netns.runtime import Condition, condition
from topology.state import LabState


@attrs.frozen(kw_only=True)
class Live:
    nodes: Mapping[str, Condition] = attrs.field(factory=dict)
    modes: Mapping[tuple[str, str], str] = attrs.field(factory=dict)
    """From a cluster to another, or within one: `native`, or `geneve, native` where its nodes
    differ."""
    faults: tuple[str, ...] = ()
    """As they were asked for."""
    silent: tuple[str, ...] = ()
    """Nodes of clusters whose agent does not answer."""


def look(layout: Lab) -> Live | None:
    """None: the lab is not up, or is containerlab's."""
    try:
        lab = state.load(layout.name)
    except NotFound:
        return None
    if lab.runtime is not RuntimeKind.NETNS or lab.file != str(layout.file):
        return None
    nodes = {name: condition(lab, name) for name in lab.nodes}
    modes: dict[tuple[str, str], set[str]] = {}
    silent = []
    for name, node in lab.nodes.items():
        if CLUSTER not in node.labels or nodes[name] is not Condition.UP:
            continue
        peers = _peers(lab, name)
        if peers is None:
            silent.append(name)
        for peer in peers or ():
            modes.setdefault((node.labels[CLUSTER], peer["cluster"]), set()).add(peer["mode"])
    return Live(
        nodes=nodes,
        modes={pair: ", ".join(sorted(found)) for pair, found in modes.items()},
        faults=tuple(book.active(lab.name)),
        silent=tuple(silent),
    )


def _peers(lab: LabState, node: str) -> list[dict[str, Any]] | None:
    """As its agent lists them; None: it does not answer."""
    try:
        status = json.loads(inside.run(lab, node, "meshnet", "status", "-o", "json"))
    except LabError:
        return None
    peers: list[dict[str, Any]] = status["peers"]
    return peers
