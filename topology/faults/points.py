"""Where the packets between two nodes pass, so that a fault works in the middle.

Where they leave for the receiver, at their very last step: on the switch's port where there
is a switch, so that the hosts' own programs cannot pass by it. There broadcasts and multicasts
for the receiver pass too, so a routing protocol notices what is cut.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from meshnet.netlink import fabric
from topology.model import Lab
from topology.netns import runtime
from topology.state import LabState


@attrs.frozen(kw_only=True)
class Point:
    """An interface that packets pass, in some node's namespace."""

    node: str
    pid: int
    ifname: str


def arrivals(lab: LabState, layout: Lab, receiver: str) -> Iterator[Point]:
    """All packets to the receiver leave for it here: at the far end of each of its links."""
    for link in layout.links:
        for own, far in (link.ends, link.ends[::-1]):
            if own.node == receiver:
                yield _point(lab, far.node, far.ifname)


def interfaces(lab: LabState, layout: Lab, node: str) -> list[Point]:
    """The node's own ends of its links."""
    ends = (end for link in layout.links for end in link.ends if end.node == node)
    return [_point(lab, node, end.ifname) for end in ends]


def present(pid: int) -> set[str]:
    """The interfaces of a node: those of a switch go with the hosts that were killed."""
    return {port.ifname for port in fabric.ports(runtime.netns(pid))}


def cables(layout: Lab, one: str, other: str) -> bool:
    """Whether a cable joins the two, with no switch or router between."""
    return any({end.node for end in link.ends} == {one, other} for link in layout.links)


def matches(lab: LabState, layout: Lab, node: str) -> Iterator[str]:
    """What tells packets from the node: its MACs on a switch, its addresses behind a router."""
    linked = {point.ifname for point in interfaces(lab, layout, node)}
    for port in fabric.ports(runtime.netns(runtime.live_pid(lab, node))):
        if port.ifname in linked:
            yield f"ether saddr {port.mac}"
            for address in port.addresses:
                yield f"{'ip' if address.version == 4 else 'ip6'} saddr {address}"


def _point(lab: LabState, node: str, ifname: str) -> Point:
    return Point(node=node, pid=runtime.live_pid(lab, node), ifname=ifname)
