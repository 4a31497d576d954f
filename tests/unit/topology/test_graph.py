"""Pictures of a lab."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from topology import clab, drawing, graph

LAB = clab.read(Path(__file__).parents[3] / "containerlab" / "two-clusters.clab.yml")
SVG = "{http://www.w3.org/2000/svg}"


def test_svg_shows_every_node_once_every_link_and_both_interface_names() -> None:
    root = ElementTree.fromstring(drawing.svg(LAB))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    names = [e.text for e in root.iter(f"{SVG}text") if e.get("class") == "name"]
    assert sorted(map(str, names)) == sorted(LAB.nodes)
    assert len(list(root.iter(f"{SVG}line"))) == len(LAB.links)
    assert texts.count("eth1") == 4
    assert {"east", "west"} <= set(texts)


def test_svg_keeps_everything_inside_and_no_two_boxes_overlap() -> None:
    root = ElementTree.fromstring(drawing.svg(LAB))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = [
        tuple(float(e.get(key, 0)) for key in ("x", "y", "width", "height"))
        for e in root.iter(f"{SVG}rect")
        if e.get("stroke")
    ]
    assert len(boxes) == len(LAB.nodes)
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
