"""A lab as text that draws itself: Graphviz and Mermaid. For SVG see drawing.py."""

from __future__ import annotations

from collections.abc import Iterable

from topology import legend
from topology.live import Live
from topology.model import Lab, LabNode
from topology.netns.runtime import Condition


def dot(lab: Lab, live: Live | None = None) -> str:
    modes = legend.asked(lab)
    lines = [f'graph "{lab.name}" {{', "  layout=fdp; overlap=false; splines=true;",
             '  node [shape=box, style=rounded, fontname="sans-serif"];']  # fmt: skip
    for index, (cluster, nodes) in enumerate(legend.clusters(lab).items()):
        names = "; ".join(f'"{node.name}"' for node in nodes)
        if cluster:
            label = f"{cluster} ({modes[cluster]})"
            lines.append(f'  subgraph cluster_{index} {{ label="{label}"; {names}; }}')
        else:
            lines.append(f"  {names};")
    lines += [f'  "{node.name}" [shape=ellipse];' for node in _bridges(lab)]
    lines += [
        f'  "{link.one.node}" -- "{link.other.node}" '
        f'[taillabel="{link.one.ifname}", headlabel="{link.other.ifname}"];'
        for link in lab.links
    ]
    if live is not None:
        lines += [
            f'  "{name}" [style="rounded,dashed", color=gray, label="{name}\\n{condition}"];'
            for name, condition in live.nodes.items()
            if condition is not Condition.UP
        ]
        words = [*legend.lines(live), *legend.broken(live)]
        lines.append('  label="' + "\\n".join([lab.name, *words]) + '";')
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(lab: Lab, live: Live | None = None) -> str:
    modes = legend.asked(lab)
    ids = {name: f"n{index}" for index, name in enumerate(lab.nodes)}
    lines = ["graph LR"]
    for cluster, nodes in legend.clusters(lab).items():
        boxes = [f'{ids[node.name]}["{node.name}"]' for node in nodes]
        if cluster:
            boxes = [f"  {box}" for box in boxes]
            boxes = [f'subgraph {cluster}["{cluster} ({modes[cluster]})"]', *boxes, "end"]
        lines += [f"  {box}" for box in boxes]
    lines += [f'  {ids[node.name]}(["{node.name}"])' for node in _bridges(lab)]
    lines += [
        f'  {ids[link.one.node]} ---|"{link.one.ifname} · {link.other.ifname}"| '
        f"{ids[link.other.node]}"
        for link in lab.links
    ]
    if live is not None:
        lines += [f'  {one} -. "{mode}" .-> {other}' for (one, other), mode in live.modes.items()
                  if one != other]  # fmt: skip
        for name, condition in live.nodes.items():
            if condition is not Condition.UP:
                lines.append(f"  style {ids[name]} stroke-dasharray: 5 5,color:#888")
                lines.append(f'  {ids[name]}["{name} ({condition})"]')
    return "\n".join(lines) + "\n"


def _bridges(lab: Lab) -> Iterable[LabNode]:
    return (node for node in lab.nodes.values() if node.is_bridge)
