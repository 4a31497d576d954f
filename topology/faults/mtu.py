"""A path that is too narrow between two nodes.

Behind a switch: longer packets disappear without a word, as at a bad middle hop. The sender
must not hand over merged packets then (they have no length of the wire), so its segmentation
offload is turned off until `heal`. On a cable: the interfaces' own MTU, so that hosts and
routers at its ends know and say so.
"""

from __future__ import annotations

from meshnet.errors import UsageError
from topology.faults import filters, tools
from topology.faults.book import Book
from topology.faults.points import Point, cables, interfaces, present
from topology.model import Lab
from topology.netns import runtime
from topology.state import LabState

MTU_MIN = 68
"""RFC 791: what every link carries."""
ETHER = 14
"""Bytes of an Ethernet header, which netfilter counts on egress."""
OFFLOADS = (
    "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation", "tx-udp-segmentation",
)  # fmt: skip


def narrow(
    lab: LabState, layout: Lab, book: Book, pair: tuple[str, str], size: int, *, one_way: bool
) -> None:
    """Packets longer than `size` bytes (of IP) do not pass."""
    if cables(layout, *pair):
        if one_way:
            raise UsageError(
                f"{pair[0]} and {pair[1]} are on one cable, which is as wide both ways: leave out "
                "--one-way"
            )
        _narrow_cables(lab, layout, pair, size)
        return
    for sender, receiver in (pair, pair[::-1])[: 1 if one_way else 2]:
        for point in interfaces(lab, layout, sender):
            _stop_merging(point, book)
        filters.drop(lab, layout, sender, receiver, f"meta length > {size + ETHER} drop")


def restore(lab: LabState, layout: Lab, book: Book) -> None:
    """Every link as wide as its file says, every host merging as before."""
    for link in layout.links:
        for end in link.ends:
            node = lab.nodes.get(end.node)
            if node is None or node.pid is None or not runtime.is_up(node):
                continue
            if end.ifname in present(node.pid):
                _set_mtu(node.pid, end.ifname, link.mtu)
    for (name, ifname), features in book.offloads.items():
        node = lab.nodes.get(name)
        if node is not None and node.pid is not None and runtime.is_up(node):
            for feature in features:
                tools.run(node.pid, "ethtool", "-K", ifname, feature, "on")


def _narrow_cables(lab: LabState, layout: Lab, pair: tuple[str, str], size: int) -> None:
    for link in layout.links:
        if {end.node for end in link.ends} == set(pair):
            for end in link.ends:
                _set_mtu(runtime.live_pid(lab, end.node), end.ifname, size)


def _set_mtu(pid: int, ifname: str, mtu: int) -> None:
    tools.run(pid, "ip", "link", "set", "dev", ifname, "mtu", str(mtu))


def _stop_merging(point: Point, book: Book) -> None:
    listed = tools.run(point.pid, "ethtool", "-k", point.ifname).splitlines()
    words = dict(line.strip().split(": ", 1) for line in listed if ": " in line)
    active = [feature for feature in OFFLOADS if words.get(feature) == "on"]
    if active:
        book.note_offloads((point.node, point.ifname), active)
        for feature in active:
            tools.run(point.pid, "ethtool", "-K", point.ifname, feature, "off")
