"""Faults of a namespace lab, by the words of the command line: what networks do, on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from meshnet.errors import NotFound, UsageError
from topology import clab
from topology.faults import book as books
from topology.faults import clock, filters, mtu, rate
from topology.faults.book import Book
from topology.model import Lab, RuntimeKind
from topology.netns import runtime
from topology.state import LabState

KINDS = (
    "cut A B, loss A B 20%, rate A B 10mbit, mtu A B 1400, kill NODE, freeze NODE, "
    "clock NODE +3600, or heal"
)


def apply(lab: LabState, words: Sequence[str], *, one_way: bool = False) -> None:
    """Do what the words say, such as `loss east-1 west-1 20%`.

    Raises:
        UsageError: they say nothing, or the lab is not of namespaces.
        NotFound: no such node, or it has no link.
        CapabilityMissing, LabError: a tool or the kernel cannot.
    """
    if lab.runtime is RuntimeKind.CONTAINERLAB:
        raise UsageError(
            f"lab {lab.name!r} is containerlab's: use `containerlab tools netem` for faults in it"
        )
    with books.opened(lab.name) as book:
        if list(words) == ["heal"]:
            heal(lab, book)
            return
        if len(words) > 2 and words[0] in ("cut", "loss", "rate", "mtu"):
            _between(lab, book, words, one_way=one_way)
        elif one_way:
            raise UsageError(f"--one-way is for faults between two nodes, not for {words[0]!r}")
        else:
            _of_one(lab, words)
        book.note([*words, "one way"] if one_way else words)


def heal(lab: LabState, book: Book) -> None:
    """All faults of the lab end; frozen nodes go on. Killed ones stay dead."""
    layout = clab.read(Path(lab.file))
    for name, node in lab.nodes.items():
        if node.pid is not None and runtime.is_up(node):
            runtime.freeze(lab, name, False)
            filters.remove_all(node.pid)
            rate.remove_all(lab, layout, name)
            clock.restore(lab, name)
    mtu.restore(lab, layout, book)
    book.clear()


def percent(text: str) -> float:
    """`20%` -> 20.0"""
    try:
        value = float(text.removesuffix("%"))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a share: write 20%") from error
    if not 0 < value <= 100:
        raise UsageError(f"{text!r} is not between 0 and 100 %")
    return value


def bits_per_second(text: str) -> int:
    """`10mbit` -> 10 000 000, with tc's units."""
    for unit, factor in (("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3), ("bit", 1)):
        number = text.lower().removesuffix(unit)
        if number != text.lower() and number.replace(".", "", 1).isdigit():
            return round(float(number) * factor)
    raise UsageError(f"{text!r} is not a rate: write 10mbit, 500kbit or 1gbit")


def packet_size(text: str) -> int:
    """`1400`: bytes of IP."""
    if not text.isdigit() or not mtu.MTU_MIN <= int(text) <= 65535:
        raise UsageError(f"{text!r} is no MTU: write {mtu.MTU_MIN} to 65535 bytes, such as 1400")
    return int(text)


def _between(lab: LabState, book: Book, words: Sequence[str], *, one_way: bool) -> None:
    one, other = words[1:3]
    for node in (one, other):
        runtime.live_pid(lab, node)
    if one == other:
        raise UsageError(f"a fault is between two nodes, not {one!r} and itself")
    layout = clab.read(Path(lab.file))
    for node in (one, other):
        if not any(end.node == node for link in layout.links for end in link.ends):
            raise NotFound(f"node {node!r} has no link in {lab.file}, so nothing can be cut")
    pairs = ((one, other), (other, one))[: 1 if one_way else 2]
    match [words[0], *words[3:]]:
        case ["cut"]:
            _drop(lab, layout, pairs, "drop")
        case ["loss", share]:
            below = round(percent(share) * 100)
            _drop(lab, layout, pairs, f"numgen random mod 10000 < {below} drop")
        case ["rate", amount]:
            bits = bits_per_second(amount)
            for pair in pairs:
                rate.limit(lab, layout, *pair, bits)
        case ["mtu", size]:
            mtu.narrow(lab, layout, book, (one, other), packet_size(size), one_way=one_way)
        case _:
            raise _unknown(words)


def _drop(lab: LabState, layout: Lab, pairs: Sequence[tuple[str, str]], verdict: str) -> None:
    for sender, receiver in pairs:
        filters.drop(lab, layout, sender, receiver, verdict)


def _of_one(lab: LabState, words: Sequence[str]) -> None:
    match list(words):
        case ["kill", node]:
            runtime.kill(lab, node)
        case ["freeze", node]:
            runtime.freeze(lab, node, True)
        case ["clock", node, offset]:
            clock.shift(lab, node, clock.seconds(offset))
        case _:
            raise _unknown(words)


def _unknown(words: Sequence[str]) -> UsageError:
    return UsageError(f"{' '.join(words)!r} is no fault: {KINDS}")
