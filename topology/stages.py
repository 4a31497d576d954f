"""The order in which a lab comes up: what may go on at the same time, and what waits.

A node is created, gets its links, is configured (its commands run) and is healthy then. A
link is laid when both of its nodes are there. `stages.STAGE.wait-for` adds what a stage of
one node waits for at another. Source: https://containerlab.dev/manual/nodes/#stages
"""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import attrs

from topology.model import Lab, Link, Stage


@attrs.frozen
class Step:
    """A stage that a node goes through."""

    node: str
    stage: Stage

    def __str__(self) -> str:
        return f"{self.stage} of {self.node}"


def waves(lab: Lab) -> Iterator[list[Step | Link]]:
    """Lists of what can be done at the same time, one after the other."""
    sorter = _sorter(lab)
    sorter.prepare()
    while sorter.is_active():
        ready = list(sorter.get_ready())
        yield ready
        sorter.done(*ready)


def circle(lab: Lab) -> list[Step]:
    """Steps that wait for each other, from one of them back to itself; empty: none do."""
    try:
        _sorter(lab).prepare()
    except CycleError as error:
        # an edge leads from what must be first to what waits for it
        steps = [step for step in reversed(error.args[1]) if isinstance(step, Step)]
        return steps if steps[0] == steps[-1] else [*steps, steps[0]]
    return []


def _sorter(lab: Lab) -> TopologicalSorter[Step | Link]:
    sorter: TopologicalSorter[Step | Link] = TopologicalSorter()
    for node in lab.nodes.values():
        before: list[Step | Link] = []
        for stage in (Stage.CREATE, Stage.LINKS, Stage.CONFIGURE, Stage.HEALTHY):
            step = Step(node.name, stage)
            waited = [Step(wait.node, wait.stage) for wait in node.waits.get(stage, ())]
            sorter.add(step, *before, *waited)
            if stage is Stage.LINKS:
                for link in lab.links:
                    if node.name in (link.one.node, link.other.node):
                        sorter.add(link, *before, *waited)
                        sorter.add(step, link)
            before = [step]
    return sorter
