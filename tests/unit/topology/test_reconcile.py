"""From a lab that runs to what its file says now."""

from __future__ import annotations

from pathlib import Path

import attrs

from topology.model import BRIDGE_KIND, HOST_KIND, MACHINE_KIND, Lab, LabNode, Link, LinkEnd
from topology.model import RuntimeKind as Runtime
from topology.reconcile import Changes, changes, definition, link_state
from topology.state import LabState, NodeState


def node(name: str, kind: str = HOST_KIND, **fields: object) -> LabNode:
    return LabNode(name=name, kind=kind, hostname=name, **fields)  # type: ignore[arg-type]


def link(one: str, other: str, mtu: int = 1500) -> Link:
    ends = [LinkEnd(node=n, ifname=i) for n, i in (one.split(":"), other.split(":"))]
    return Link(one=ends[0], other=ends[1], mtu=mtu)


def lab(nodes: list[LabNode], links: list[Link]) -> Lab:
    by_name = {n.name: n for n in nodes}
    return Lab(name="l", file=Path("/l.yml"), nodes=by_name, links=tuple(links))


def running(there: Lab) -> LabState:
    return LabState(
        name="l",
        file="/l.yml",
        runtime=Runtime.NETNS,
        nodes={
            n.name: NodeState(kind=n.kind, env={}, labels={}, definition=definition(n))
            for n in there.nodes.values()
        },
        links=tuple(map(link_state, there.links)),
    )


A, B, SW = node("a"), node("b"), node("sw", BRIDGE_KIND)
LINKS = [link("a:eth1", "sw:a"), link("b:eth1", "sw:b")]
LAB = lab([A, B, SW], LINKS)
ALL = {"a", "b", "sw"}
NOTHING = Changes(gone=(), fresh=(), unplugged=(), plugged=())


def test_a_lab_that_is_as_its_file_says_stays_as_it_is() -> None:
    assert changes(running(LAB), LAB, ALL) == NOTHING
    assert NOTHING.none


def test_a_new_lab_is_made_from_nothing() -> None:
    empty = attrs.evolve(running(LAB), nodes={}, links=())
    assert changes(empty, LAB, ()) == Changes(
        gone=(), fresh=("a", "b", "sw"), unplugged=(), plugged=tuple(LINKS)
    )


def test_a_dead_node_is_made_again_with_its_links() -> None:
    assert changes(running(LAB), LAB, {"b", "sw"}) == Changes(
        gone=("a",), fresh=("a",), unplugged=(("sw", "a"),), plugged=(LINKS[0],)
    )


def test_a_changed_node_is_made_anew_and_a_removed_one_goes() -> None:
    new = lab([node("a", exec=("true",)), SW], LINKS[:1])
    assert changes(running(LAB), new, ALL) == Changes(
        gone=("a", "b"), fresh=("a",), unplugged=(("sw", "a"), ("sw", "b")), plugged=(LINKS[0],)
    )


def test_a_changed_link_is_laid_anew_and_its_nodes_stay() -> None:
    narrow = link("a:eth1", "sw:a", mtu=1400)
    assert changes(running(LAB), lab([A, B, SW], [narrow, LINKS[1]]), ALL) == Changes(
        gone=(), fresh=(), unplugged=(("a", "eth1"),), plugged=(narrow,)
    )


def test_the_machine_is_neither_made_nor_taken_away() -> None:
    machine = node("m", MACHINE_KIND)
    cable = link("m:lab0", "a:eth1")
    old = lab([machine, A], [cable])
    assert changes(running(old), lab([A], []), {"a", "m"}) == Changes(
        gone=(), fresh=(), unplugged=(("a", "eth1"),), plugged=()
    )
    assert changes(running(old), old, {"m"}) == Changes(
        gone=("a",), fresh=("a",), unplugged=(("m", "lab0"),), plugged=(cable,)
    )
