"""A lab as an SVG picture.

Hosts stand in two rows, each cluster together in its frame, and switches between the rows;
a lab without switches is drawn on a circle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape

import attrs

from topology import graph
from topology.model import Lab, Link

BOX_W, BOX_H = 132, 52
GAP = 36
MARGIN = 56
ROW = 150
"""From the middle of one row to the middle of the next."""
COLOURS = ("#2f6fb0", "#b3572c", "#3b8a57", "#7a4fa3", "#a83f5c", "#4c7d85")
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1c2733;text-anchor:middle}"
    ".port{font-size:11px;fill:#55636f;paint-order:stroke;stroke:#fff;stroke-width:4px}"
    ".name{font-weight:600}.title{font-size:18px;font-weight:600}"
    "line{stroke:#8b98a5;stroke-width:2}"
)


@attrs.frozen
class Spot:
    """The middle of a node's box, and its width."""

    x: float
    y: float
    width: float = BOX_W

    def towards(self, other: Spot) -> Spot:
        """Where a cable to `other` starts: a wide box has it right above or below."""
        room = max(self.width / 2 - BOX_W / 2, 0)
        return Spot(min(max(other.x, self.x - room), self.x + room), self.y)


def svg(lab: Lab) -> str:
    spots = _circle(lab) if not _bridges(lab) else _rows(lab)
    width = max(spot.x for spot in spots.values()) + BOX_W / 2 + MARGIN
    height = max(spot.y for spot in spots.values()) + BOX_H / 2 + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="lab {escape(lab.name)}">',
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text class="title" x="{width / 2:.0f}" y="30">{escape(lab.name)}</text>',
        *_frames(lab, spots),
        *(part for link in lab.links for part in _cable(link, spots)),
        *_boxes(lab, spots),
        *(part for link in lab.links for part in _ports(link, spots)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bridges(lab: Lab) -> list[str]:
    return [node.name for node in lab.nodes.values() if node.is_bridge]


def _rows(lab: Lab) -> dict[str, Spot]:
    """Clusters alternate between the upper and the lower row."""
    rows: tuple[list[str], list[str]] = ([], [])
    for index, nodes in enumerate(graph.clusters(lab).values()):
        rows[index % 2].extend(node.name for node in nodes)
    middle = _bridges(lab)
    widest = max(len(rows[0]), len(rows[1]), len(middle))
    centre = MARGIN + (widest * (BOX_W + GAP) - GAP) / 2
    spots: dict[str, Spot] = {}
    top = MARGIN + 30 + BOX_H / 2
    for number, names in enumerate((rows[0], middle, rows[1])):
        left = centre - (len(names) - 1) * (BOX_W + GAP) / 2
        for index, name in enumerate(names):
            # one switch is as wide as the picture, so that its cables keep apart
            alone = number == 1 and len(names) == 1
            width = widest * (BOX_W + GAP) - GAP if alone else BOX_W
            spots[name] = Spot(left + index * (BOX_W + GAP), top + number * ROW, width)
    return spots


def _circle(lab: Lab) -> dict[str, Spot]:
    count = len(lab.nodes)
    radius = max(140.0, count * (BOX_W + GAP) / (2 * math.pi))
    centre = Spot(radius + BOX_W / 2 + MARGIN, radius + BOX_H / 2 + MARGIN + 30)
    return {
        name: Spot(
            centre.x + radius * math.sin(2 * math.pi * index / count),
            centre.y - radius * math.cos(2 * math.pi * index / count),
        )
        for index, name in enumerate(lab.nodes)
    }


def _colour(lab: Lab, cluster: str) -> str:
    named = [name for name in graph.clusters(lab) if name]
    return COLOURS[named.index(cluster) % len(COLOURS)] if cluster else "#55636f"


def _frames(lab: Lab, spots: Mapping[str, Spot]) -> Iterator[str]:
    """Round each cluster whose hosts stand in one row."""
    for cluster, nodes in graph.clusters(lab).items():
        mine = [spots[node.name] for node in nodes]
        if not cluster or len({spot.y for spot in mine}) > 1:
            continue
        left = min(spot.x for spot in mine) - BOX_W / 2 - 12
        right = max(spot.x for spot in mine) + BOX_W / 2 + 12
        top = mine[0].y - BOX_H / 2 - 28
        yield (
            f'<rect x="{left:.0f}" y="{top:.0f}" width="{right - left:.0f}" '
            f'height="{BOX_H + 40}" rx="14" fill="{_colour(lab, cluster)}" fill-opacity="0.08"/>'
        )
        yield f'<text x="{(left + right) / 2:.0f}" y="{top + 18:.0f}">{escape(cluster)}</text>'


def _cable(link: Link, spots: Mapping[str, Spot]) -> Iterator[str]:
    first, second = spots[link.one.node], spots[link.other.node]
    one, other = first.towards(second), second.towards(first)
    yield f'<line x1="{one.x:.0f}" y1="{one.y:.0f}" x2="{other.x:.0f}" y2="{other.y:.0f}"/>'


def _ports(link: Link, spots: Mapping[str, Spot]) -> Iterator[str]:
    """Interface names, just outside each box."""
    for own, far in (link.ends, link.ends[::-1]):
        box, far_box = spots[own.node], spots[far.node]
        here, there = box.towards(far_box), far_box.towards(box)
        dx, dy = there.x - here.x, there.y - here.y
        # where the cable leaves the box, and a little further
        leave = min(BOX_W / 2 / abs(dx) if dx else 1.0, BOX_H / 2 / abs(dy) if dy else 1.0)
        share = min(leave + 16 / (math.hypot(dx, dy) or 1.0), 0.45)
        x, y = here.x + dx * share, here.y + dy * share + 4
        yield f'<text class="port" x="{x:.0f}" y="{y:.0f}">{escape(own.ifname)}</text>'


def _boxes(lab: Lab, spots: Mapping[str, Spot]) -> Iterator[str]:
    for node in lab.nodes.values():
        spot = spots[node.name]
        radius = BOX_H / 2 if node.is_bridge else 8
        colour = _colour(lab, "" if node.is_bridge else node.labels.get(graph.CLUSTER_LABEL, ""))
        yield (
            f'<rect x="{spot.x - spot.width / 2:.0f}" y="{spot.y - BOX_H / 2:.0f}" '
            f'width="{spot.width:.0f}" '
            f'height="{BOX_H}" rx="{radius:.0f}" fill="#fff" stroke="{colour}" stroke-width="2"/>'
        )
        yield (
            f'<text class="name" x="{spot.x:.0f}" y="{spot.y + 5:.0f}">{escape(node.name)}</text>'
        )
