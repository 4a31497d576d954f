"""A lab as an SVG picture.

Hosts stand in two rows, each cluster together in its frame, and switches between the rows.
Without switches: clusters below, routers above them by how far away they are; and a lab
without clusters either is drawn on a circle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape

import attrs

from topology import legend
from topology.formation import CLUSTER
from topology.live import Live
from topology.model import Lab, LabNode, Link
from topology.netns.runtime import Condition

BOX_W, BOX_H = 132, 52
GAP = 36
WIDE_GAP = 92
"""Where cables may go from a box to the one beside it."""
MARGIN = 56
LINE, LETTER = 22, 8
"""A line of words, and room for a letter."""
ROW = 150
"""From the middle of one row to the middle of the next."""
COLOURS = ("#2f6fb0", "#b3572c", "#3b8a57", "#7a4fa3", "#a83f5c", "#4c7d85")
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1c2733;text-anchor:middle}"
    ".port{font-size:11px;fill:#55636f;paint-order:stroke;stroke:#fff;stroke-width:4px}"
    ".name{font-weight:600}.title{font-size:18px;font-weight:600}"
    "line{stroke:#8b98a5;stroke-width:2}"
    ".said{text-anchor:start}.broken{fill:#b3261e}.mode{font-size:12px;fill:#55636f}"
    ".off{stroke-dasharray:6 5;stroke-opacity:.45}"
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


def svg(lab: Lab, live: Live | None = None) -> str:
    spots = _spots(lab)
    words = [(line, "said") for line in legend.lines(live)]
    words += [(line, "said broken") for line in legend.broken(live)]
    longest = max((len(line) for line, _ in words), default=0)
    width = max(spot.x for spot in spots.values()) + BOX_W / 2 + MARGIN
    width = max(width, longest * LETTER + 2 * MARGIN)
    below = max(spot.y for spot in spots.values()) + BOX_H / 2 + MARGIN
    height = below + len(words) * LINE + (GAP if words else 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="lab {escape(lab.name)}">',
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text class="title" x="{width / 2:.0f}" y="30">{escape(lab.name)}</text>',
        *_frames(lab, spots),
        *(part for link in lab.links for part in _cable(link, spots)),
        *_boxes(lab, spots, live),
        *(part for link in lab.links for part in _ports(link, spots)),
        *(
            f'<text class="{kind}" x="{MARGIN}" y="{below + number * LINE:.0f}">'
            f"{escape(line)}</text>"
            for number, (line, kind) in enumerate(words)
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bridges(lab: Lab) -> list[str]:
    return [node.name for node in lab.nodes.values() if node.is_bridge]


def _spots(lab: Lab) -> dict[str, Spot]:
    if _bridges(lab):
        return _rows(lab)
    if any(legend.clusters(lab)):
        return _tiers(lab)
    return _circle(lab)


def _tiers(lab: Lab) -> dict[str, Spot]:
    """Rows by the number of cables to the nearest node of a cluster, those at the bottom."""
    rows = [[node.name for name, nodes in legend.clusters(lab).items() if name for node in nodes]]
    left = [name for name in lab.nodes if name not in rows[0]]
    while left:
        joined = {
            own.node
            for link in lab.links
            for own, far in (link.ends, link.ends[::-1])
            if far.node in rows[-1]
        }
        # what no cable leads to stands on top
        rows.append([name for name in left if name in joined] or left)
        left = [name for name in left if name not in rows[-1]]
    widest = max(map(len, rows)) * (BOX_W + WIDE_GAP)
    spots: dict[str, Spot] = {}
    for number, names in enumerate(reversed(rows)):
        step = widest / len(names)
        for index, name in enumerate(names):
            x = MARGIN - WIDE_GAP / 2 + step * (index + 0.5)
            spots[name] = Spot(x, MARGIN + 30 + BOX_H / 2 + number * ROW)
    return spots


def _rows(lab: Lab) -> dict[str, Spot]:
    """Clusters alternate between the upper and the lower row."""
    rows: tuple[list[str], list[str]] = ([], [])
    for index, nodes in enumerate(legend.clusters(lab).values()):
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
    named = [name for name in legend.clusters(lab) if name]
    return COLOURS[named.index(cluster) % len(COLOURS)] if cluster else "#55636f"


def _frames(lab: Lab, spots: Mapping[str, Spot]) -> Iterator[str]:
    """Round each cluster whose hosts stand in one row."""
    modes = legend.asked(lab)
    for cluster, nodes in legend.clusters(lab).items():
        mine = [spots[node.name] for node in nodes]
        if not cluster or len({spot.y for spot in mine}) > 1:
            continue
        left = min(spot.x for spot in mine) - BOX_W / 2 - 12
        right = max(spot.x for spot in mine) + BOX_W / 2 + 12
        # its words stand where no cables are
        below = mine[0].y == max(spot.y for spot in spots.values())
        top = mine[0].y - BOX_H / 2 - (12 if below else 28)
        words = top + BOX_H + (33 if below else -34)
        yield (
            f'<rect x="{left:.0f}" y="{top:.0f}" width="{right - left:.0f}" '
            f'height="{BOX_H + 40}" rx="14" fill="{_colour(lab, cluster)}" fill-opacity="0.08"/>'
        )
        yield (
            f'<text x="{(left + right) / 2:.0f}" y="{words:.0f}">{escape(cluster)} '
            f'<tspan class="mode">{escape(modes[cluster])}</tspan></text>'
        )


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


def _boxes(lab: Lab, spots: Mapping[str, Spot], live: Live | None) -> Iterator[str]:
    for node in lab.nodes.values():
        spot = spots[node.name]
        condition = live.nodes.get(node.name, Condition.UP) if live else Condition.UP
        off = ' class="off"' if condition is not Condition.UP else ""
        radius = BOX_H / 2 if node.is_bridge else 8
        yield (
            f'<rect x="{spot.x - spot.width / 2:.0f}" y="{spot.y - BOX_H / 2:.0f}" '
            f'width="{spot.width:.0f}" height="{BOX_H}" rx="{radius:.0f}" fill="#fff" '
            f'stroke="{_stroke(lab, node)}" stroke-width="2"{off}/>'
        )
        drop = 5 if condition is Condition.UP else -2
        yield (
            f'<text class="name" x="{spot.x:.0f}" y="{spot.y + drop:.0f}">'
            f"{escape(node.name)}</text>"
        )
        if condition is not Condition.UP:
            yield (
                f'<text class="broken" x="{spot.x:.0f}" y="{spot.y + 16:.0f}">{condition}</text>'
            )


def _stroke(lab: Lab, node: LabNode) -> str:
    return _colour(lab, "" if node.is_bridge else node.labels.get(CLUSTER, ""))
