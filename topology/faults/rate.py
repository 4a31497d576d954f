"""A slow path between two nodes: HTB where packets leave for the receiver.

One class a sender, chosen by the packet's priority, which nft sets; other senders' packets
have no class and pass unshaped. What does not fit a class waits 50 ms at most, as in a
router's queue. The priority does not survive the way into another namespace, so rule and
class are on the same interface.
"""

from __future__ import annotations

import json
from typing import Any

from meshnet.errors import LabError
from topology.faults import filters, tools
from topology.faults.points import Point, arrivals, interfaces, matches, present
from topology.model import Lab
from topology.netns import runtime
from topology.state import LabState

HANDLE = "7f00:"
QUEUE_S = 0.05
QUEUE_MIN_BYTES = 256 * 1024
"""Room for a few merged packets of 64 kB."""


def limit(lab: LabState, layout: Lab, sender: str, receiver: str, bits: int) -> None:
    """From the sender to the receiver, `bits` a second at most."""
    number = f"{list(layout.nodes).index(sender) + 1:x}"
    found = list(matches(lab, layout, sender))
    for point in arrivals(lab, layout, receiver):
        _shape(point, number, bits)
        pair = f"{sender}-{receiver}"
        filters.add(point, pair, found, f"meta priority set {HANDLE}{number}")


def remove_all(lab: LabState, layout: Lab, node: str) -> None:
    """On all interfaces of one node. None is not an error."""
    there = present(runtime.live_pid(lab, node))
    for point in interfaces(lab, layout, node):
        if point.ifname in there and _handle(point) == HANDLE:
            tools.run(point.pid, "tc", "qdisc", "del", "dev", point.ifname, "root")


def _shape(point: Point, number: str, bits: int) -> None:
    def tc(*words: str) -> None:
        tools.run(point.pid, "tc", *words)

    there = _handle(point)
    if there not in ("", HANDLE):
        raise LabError(
            f"{point.node}:{point.ifname} has a queueing discipline of its own ({there}), which a "
            f"rate fault would replace: take it away with `tc qdisc del dev {point.ifname} root`"
        )
    queue = max(round(bits / 8 * QUEUE_S), QUEUE_MIN_BYTES)
    device, class_id = ("dev", point.ifname), f"{HANDLE}{number}"
    tc("qdisc", "replace", *device, "root", "handle", HANDLE, "htb", "default", "0")
    tc("class", "replace", *device, "parent", HANDLE, "classid", class_id,
       "htb", "rate", f"{bits}bit", "quantum", "60000")  # fmt: skip
    tc("qdisc", "replace", *device, "parent", class_id, "bfifo", "limit", str(queue))


def _handle(point: Point) -> str:
    """Of the interface's root discipline; empty for the one that veths come with."""
    listed = tools.run(point.pid, "tc", "-j", "qdisc", "show", "dev", point.ifname, "root")
    found: list[dict[str, Any]] = json.loads(listed or "[]")
    if not found or found[0]["kind"] == "noqueue":
        return ""
    return str(found[0]["handle"])
