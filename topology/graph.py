"""A lab as text that draws itself: Graphviz and Mermaid. For SVG see drawing.py."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from topology.model import Lab, LabNode

CLUSTER_LABEL = "meshnet.cluster"


class Form(enum.StrEnum):
    SVG = "svg"
    DOT = "dot"
    MERMAID = "mermaid"


def clusters(lab: Lab) -> Mapping[str, list[LabNode]]:
    """The hosts by cluster, in the file's order; those of no cluster under the empty name."""
    found: dict[str, list[LabNode]] = {}
    for node in lab.nodes.values():
        if not node.is_bridge:
            found.setdefault(node.labels.get(CLUSTER_LABEL, ""), []).append(node)
    return found


def dot(lab: Lab) -> str:
    lines = [f'graph "{lab.name}" {{', "  layout=fdp; overlap=false; splines=true;",
             '  node [shape=box, style=rounded, fontname="sans-serif"];']  # fmt: skip
    for index, (cluster, nodes) in enumerate(clusters(lab).items()):
        names = "; ".join(f'"{node.name}"' for node in nodes)
        if cluster:
            lines.append(f'  subgraph cluster_{index} {{ label="{cluster}"; {names}; }}')
        else:
            lines.append(f"  {names};")
    lines += [f'  "{node.name}" [shape=ellipse];' for node in _bridges(lab)]
    lines += [
        f'  "{link.one.node}" -- "{link.other.node}" '
        f'[taillabel="{link.one.ifname}", headlabel="{link.other.ifname}"];'
        for link in lab.links
    ]
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(lab: Lab) -> str:
    ids = {name: f"n{index}" for index, name in enumerate(lab.nodes)}
    lines = ["graph LR"]
    for cluster, nodes in clusters(lab).items():
        boxes = [f'{ids[node.name]}["{node.name}"]' for node in nodes]
        if cluster:
            boxes = [f"  {box}" for box in boxes]
            boxes = [f"subgraph {cluster}", *boxes, "end"]
        lines += [f"  {box}" for box in boxes]
    lines += [f'  {ids[node.name]}(["{node.name}"])' for node in _bridges(lab)]
    lines += [
        f'  {ids[link.one.node]} ---|"{link.one.ifname} · {link.other.ifname}"| '
        f"{ids[link.other.node]}"
        for link in lab.links
    ]
    return "\n".join(lines) + "\n"


def _bridges(lab: Lab) -> Iterable[LabNode]:
    return (node for node in lab.nodes.values() if node.is_bridge)
