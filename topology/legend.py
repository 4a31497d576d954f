"""What a picture of a lab says beside its boxes: how clusters travel, and what is broken."""

from __future__ import annotations

from collections.abc import Mapping

from topology.formation import CLUSTER
from topology.live import Live
from topology.model import Lab, LabNode

ROUTING, TUNNEL = "meshnet.routing", "meshnet.tunnel"


def clusters(lab: Lab) -> Mapping[str, list[LabNode]]:
    """The hosts by cluster, in the file's order; those of no cluster under the empty name."""
    found: dict[str, list[LabNode]] = {}
    for node in lab.nodes.values():
        if not node.is_bridge:
            found.setdefault(node.labels.get(CLUSTER, ""), []).append(node)
    return found


def asked(lab: Lab) -> Mapping[str, str]:
    """Cluster -> how its file wants it to travel: `auto, geneve`. The first node says it."""
    found = {}
    for cluster, nodes in clusters(lab).items():
        if cluster:
            labels = nodes[0].labels
            routing, tunnel = labels.get(ROUTING, "tunnel"), labels.get(TUNNEL, "vxlan")
            found[cluster] = tunnel if routing == "tunnel" else f"{routing}, {tunnel}"
    return found


def lines(live: Live | None) -> list[str]:
    """Of a lab that is up."""
    if live is None:
        return []
    there = list(live.modes)
    found = []
    for one, other in there:
        mode, back = live.modes[one, other], live.modes.get((other, one))
        if one == other:
            found.append(f"within {one}: {mode}")
        elif back == mode:
            if there.index((one, other)) < there.index((other, one)):
                found.append(f"{one} - {other}: {mode}")
        else:
            found.append(f"{one} to {other}: {mode}")
    return found


def broken(live: Live | None) -> list[str]:
    """Faults, and agents that do not answer."""
    if live is None:
        return []
    return [*live.faults, *(f"{node}: its agent does not answer" for node in live.silent)]
