"""Pictures of a lab."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from topology import clab, drawing, graph, legend
from topology.live import Live
from topology.netns.runtime import Condition

LABS = Path(__file__).parents[3] / "containerlab"
LAB = clab.read(LABS / "two-clusters.clab.yml")
LIVE = Live(
    nodes={
        **dict.fromkeys(LAB.nodes, Condition.UP),
        "east-2": Condition.FROZEN,
        "west-2": Condition.DEAD,
    },
    modes={
        ("east", "east"): "native",
        ("east", "west"): "geneve",
        ("west", "east"): "vxlan",
        ("west", "west"): "vxlan",
    },
    faults=("cut east-1 west-1",),
    silent=("west-1",),
)
SVG = "{http://www.w3.org/2000/svg}"


def test_svg_shows_every_node_once_every_link_and_both_interface_names() -> None:
    root = ElementTree.fromstring(drawing.svg(LAB))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    names = [e.text for e in root.iter(f"{SVG}text") if e.get("class") == "name"]
    assert sorted(map(str, names)) == sorted(LAB.nodes)
    assert len(list(root.iter(f"{SVG}line"))) == len(LAB.links)
    assert texts.count("eth1") == 4
    assert {"east ", "west "} <= set(texts)
    assert [e.text for e in root.iter(f"{SVG}tspan")] == ["vxlan", "vxlan"]


@pytest.mark.parametrize("file", sorted(LABS.glob("*.clab.yml")), ids=lambda file: file.name)
def test_svg_keeps_everything_inside_and_no_two_boxes_overlap(file: Path) -> None:
    lab = clab.read(file)
    root = ElementTree.fromstring(drawing.svg(lab))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = [
        tuple(float(e.get(key, 0)) for key in ("x", "y", "width", "height"))
        for e in root.iter(f"{SVG}rect")
        if e.get("stroke")
    ]
    assert len(boxes) == len(lab.nodes)
    for x, y, w, h in boxes:
        assert x >= 0 and x + w <= width and y >= 0 and y + h <= height
    for index, (x, y, w, h) in enumerate(boxes):
        for u, v, s, _ in boxes[index + 1 :]:
            assert abs(x + w / 2 - u - s / 2) >= (w + s) / 2 or abs(y - v) >= h


def test_a_lab_without_switches_is_drawn_too(tmp_path: Path) -> None:
    file = tmp_path / "ring.clab.yml"
    file.write_text(
        "name: ring\ntopology:\n  nodes: {a: {kind: linux}, b: {kind: linux}}\n"
        '  links: [{endpoints: ["a:e", "b:e"]}]\n'
    )
    root = ElementTree.fromstring(drawing.svg(clab.read(file)))
    assert len(list(root.iter(f"{SVG}line"))) == 1


def test_dot_and_mermaid_have_every_node_and_link() -> None:
    dot, mermaid = graph.dot(LAB), graph.mermaid(LAB)
    assert dot.count(" -- ") == mermaid.count(" ---|") == len(LAB.links)
    for name in LAB.nodes:
        assert f'"{name}"' in dot
        assert f'"{name}"' in mermaid
    assert mermaid.startswith("graph LR\n")


def test_a_living_lab_shows_what_is_down_how_packets_travel_and_what_is_broken() -> None:
    root = ElementTree.fromstring(drawing.svg(LAB, LIVE))
    texts = [str(element.text) for element in root.iter(f"{SVG}text")]
    for words in (
        "east to west: geneve",
        "west to east: vxlan",
        "within east: native",
        "cut east-1 west-1",
        "west-1: its agent does not answer",
        "frozen",
        "dead",
    ):
        assert texts.count(words) == 1, words
    off = [e for e in root.iter(f"{SVG}rect") if e.get("class") == "off"]
    assert len(off) == 2
    dot, mermaid = graph.dot(LAB, LIVE), graph.mermaid(LAB, LIVE)
    for words in ("east to west: geneve", "cut east-1 west-1"):
        assert words in dot
    assert '"west-2" [style="rounded,dashed"' in dot
    assert 'east -. "geneve" .-> west' in mermaid and 'west -. "vxlan" .-> east' in mermaid
    assert '["west-2 (dead)"]' in mermaid


def test_two_clusters_that_travel_alike_both_ways_have_one_line() -> None:
    same = Live(modes={("a", "b"): "native", ("b", "a"): "native"})
    assert legend.lines(same) == ["a - b: native"]
    assert legend.lines(None) == legend.broken(None) == []


def test_what_a_file_asks_for_is_in_its_frames() -> None:
    mixed = clab.read(LABS / "three-clusters-mixed.clab.yml")
    assert legend.asked(mixed) == {"east": "auto, geneve", "north": "auto, vxlan", "west": "vxlan"}


@pytest.mark.parametrize("file", sorted(LABS.glob("*.clab.yml")), ids=lambda file: file.name)
def test_the_pictures_of_the_docs_are_up_to_date(file: Path) -> None:
    picture = LABS.parent / "docs" / "pictures" / f"{file.name.removesuffix('.clab.yml')}.svg"
    assert picture.read_text() == drawing.svg(clab.read(file)), "run `make pictures`"
