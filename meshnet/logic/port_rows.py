"""What a class of remotes may do, as rows of one longest-prefix map.

Rules of a class are resolved here once: deny wins over allow, whatever else they say. The
rows of a class never overlap but by "everything else", so the kernel's one lookup is right.
Which rule is named follows Cilium's precedence (bpf/lib/policy.h): deny, then the longer
port prefix, then a rule with a peer over one for anybody.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

import attrs

from meshnet.model.policy import LAST_PORT, PortRange
from meshnet.model.ruling import (
    ANY_PROTOCOL_BITS,
    PROTOCOL_BITS,
    PortRow,
    Verdict,
)

Rank = tuple[int, bool, int]


@attrs.frozen
class Entry:
    """A rule as it applies to one class of remotes: named ports are numbers now."""

    rule: int
    """Its number in events; 0 is "no rule"."""
    ports: tuple[PortRange, ...] | None
    deny: bool = False
    audit: bool = False
    specific: bool = False
    """It names peers."""
    origin: str = ""
    """Of its policy."""
    rank: Rank = attrs.field(init=False, eq=False, repr=False)
    """Of several that cover a port, the lowest is named."""

    @rank.default
    def _narrower_then_with_a_peer(self) -> Rank:
        return _width(self.ports), not self.specific, self.rule


@attrs.frozen
class Defaults:
    """What happens where no rule of a direction says anything."""

    deny: bool = False
    """A policy in force wants default deny."""
    audit_deny: bool = False
    """A policy in audit mode does."""
    others: tuple[tuple[str, Defaults], ...] = ()
    """The same of each other cluster that asks for policies, by its name."""

    @property
    def open(self) -> bool:
        """Nobody denies anything by default."""
        return not (self.deny or self.audit_deny) and all(d.open for _, d in self.others)


@attrs.frozen
class Ruling:
    verdict: Verdict
    rule: int = 0


_SEVERITY = {Verdict.ALLOW: 0, Verdict.AUDIT: 1, Verdict.DENY: 2}


def decide(applicable: Collection[Entry], defaults: Defaults) -> Ruling:
    """The verdict for one protocol and port, of the entries that cover it.

    Every cluster's policies are judged by themselves, and all must let it pass: so what
    another cluster asks for can close, and never open.
    """
    if not defaults.others:
        return _decide_alone(applicable, defaults)
    rulings = by_origin(applicable, defaults).values()
    return max(rulings, key=lambda ruling: (_SEVERITY[ruling.verdict], ruling.rule > 0))


def by_origin(applicable: Collection[Entry], defaults: Defaults) -> dict[str, Ruling]:
    """What each cluster's policies say, this one's first."""
    return {
        origin: _decide_alone([e for e in applicable if e.origin == origin], each)
        for origin, each in (("", defaults), *defaults.others)
    }


def _decide_alone(applicable: Collection[Entry], defaults: Defaults) -> Ruling:
    """A policy in audit mode changes nothing of what passes: what the others let through and
    all together would not is AUDIT."""
    enforced = _decide([e for e in applicable if not e.audit], deny=defaults.deny)
    if enforced.verdict is Verdict.DENY:
        return enforced
    full = _decide(applicable, deny=defaults.deny or defaults.audit_deny)
    return Ruling(Verdict.AUDIT, full.rule) if full.verdict is Verdict.DENY else full


def _decide(entries: Collection[Entry], *, deny: bool) -> Ruling:
    denying = [entry for entry in entries if entry.deny]
    if denying:
        return Ruling(Verdict.DENY, _named(denying))
    if entries:
        return Ruling(Verdict.ALLOW, _named(entries))
    return Ruling(Verdict.DENY if deny else Verdict.ALLOW)


def _named(entries: Collection[Entry]) -> int:
    return min(entries, key=lambda entry: entry.rank).rule


def _width(ports: tuple[PortRange, ...] | None) -> int:
    if ports is None:
        return LAST_PORT + 2
    return min((port.last - port.first for port in ports), default=0)


def port_rows(entries: Collection[Entry], defaults: Defaults) -> tuple[PortRow, ...]:
    """Every row of a class. No row at all means: all is denied by default."""
    everywhere = decide([entry for entry in entries if entry.ports is None], defaults)
    rows = []
    if everywhere != Ruling(Verdict.DENY):
        rows.append(PortRow(ANY_PROTOCOL_BITS, 0, 0, everywhere.verdict, everywhere.rule))
    protocols = {port.protocol for entry in entries for port in entry.ports or ()}
    for protocol in sorted(protocols):
        for first, last, ruling in _segments(entries, protocol, defaults):
            if ruling == everywhere:
                continue
            for port, bits in prefixes(first, last):
                length = PROTOCOL_BITS + (8 + bits if bits else 0)
                rows.append(PortRow(length, protocol, port, ruling.verdict, ruling.rule))
    return tuple(sorted(rows))


def _segments(
    entries: Collection[Entry], protocol: int, defaults: Defaults
) -> Iterator[tuple[int, int, Ruling]]:
    """The ports of a protocol in stretches that are ruled alike, neighbours merged."""
    beginning: defaultdict[int, list[tuple[int, Entry]]] = defaultdict(list)
    starts = {0}
    for entry in entries:
        for first, last in _stretches(entry, protocol):
            beginning[first].append((last, entry))
            starts |= {first, last + 1}
    covering = _Covering()
    open_first, open_ruling = 0, None
    for start in sorted(starts - {LAST_PORT + 1}):
        for last, entry in beginning[start]:
            covering.add(entry, last)
        ruling = decide(covering.at(start), defaults)
        if open_ruling is None:
            open_ruling = ruling
        elif ruling != open_ruling:
            yield open_first, start - 1, open_ruling
            open_first, open_ruling = start, ruling
    if open_ruling is not None:
        yield open_first, LAST_PORT, open_ruling


def _stretches(entry: Entry, protocol: int) -> Iterable[tuple[int, int]]:
    if entry.ports is None:
        return [(0, LAST_PORT)]
    return [(port.first, port.last) for port in entry.ports if port.protocol == protocol]


class _Covering:
    """The entries that cover a port, which only goes up. Of those that say the same, the one
    that is named stands for all: a remote cluster may ask for very many."""

    def __init__(self) -> None:
        # The lowest rank first, with the last port; the counter, since entries have no order.
        self._alike: defaultdict[tuple[str, bool, bool], list[tuple[Rank, int, int, Entry]]]
        self._alike = defaultdict(list)
        self._count = itertools.count()

    def add(self, entry: Entry, last: int) -> None:
        """It covers every port from now on up to `last`."""
        heap = self._alike[entry.origin, entry.deny, entry.audit]
        heapq.heappush(heap, (entry.rank, last, next(self._count), entry))

    def at(self, port: int) -> list[Entry]:
        for heap in self._alike.values():
            while heap and heap[0][1] < port:
                heapq.heappop(heap)
        return [heap[0][-1] for heap in self._alike.values() if heap]


def covers(entry: Entry, protocol: int, port: int) -> bool:
    if entry.ports is None:
        return True
    return any(p.protocol == protocol and p.first <= port <= p.last for p in entry.ports)


def prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """A range of ports as (port, bits) blocks, as few as can be: 80 to 83 is (80, 14)."""
    while first <= last:
        size = 1
        while first % (size * 2) == 0 and first + size * 2 - 1 <= last and size <= LAST_PORT:
            size *= 2
        yield first, 17 - size.bit_length()
        first += size


def ruling_of(rows: Iterable[PortRow], protocol: int, port: int) -> Ruling:
    """What the kernel's lookup answers: the longest row that matches."""
    best = max(
        (row for row in rows if _matches(row, protocol, port)),
        key=lambda row: row.length,
        default=None,
    )
    return Ruling(Verdict.DENY) if best is None else Ruling(best.verdict, best.rule)


def _matches(row: PortRow, protocol: int, port: int) -> bool:
    if row.length == ANY_PROTOCOL_BITS:
        return True
    bits = max(0, row.length - PROTOCOL_BITS - 8)
    return row.protocol == protocol and row.port >> (16 - bits) == port >> (16 - bits)
