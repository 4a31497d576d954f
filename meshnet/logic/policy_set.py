"""What a policy table is made of: policies lowered to rules that can be applied as they are.

A lowered rule has no groups and no defaults left open; its named ports are resolved only
where the endpoint that has them is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import attrs

from meshnet.logic.peers import LoweredPeer, NamedPorts, anchor_of
from meshnet.logic.port_rows import Defaults, Entry
from meshnet.model.policy import PROTOCOLS, Direction, NamedPort, Policy, PortRange

ALLOW_CLASS = 1
"""The class of those that everything is allowed for: it has no rows."""
NO_POLICY = 0
"""The policy id of an endpoint that no policy selects."""
ANYBODY = 0
"""The remote whose row is the default class of a policy and direction."""

RowKey = tuple[Direction, int]
Title = tuple[str, str]
"""A policy's title and a rule's place in it."""


@attrs.frozen(kw_only=True)
class Subject:
    """What policies see of an endpoint here."""

    labels: Mapping[str, str]
    ports: NamedPorts = frozenset()


@attrs.frozen
class LoweredRule:
    """A rule of one policy as it is applied: no groups, no defaults left open."""

    number: int
    direction: Direction
    deny: bool
    audit: bool
    peers: tuple[LoweredPeer, ...] | None
    ports: tuple[PortRange | NamedPort, ...] | None
    origin: str = ""


@attrs.frozen
class LoweredPolicy:
    policy: Policy
    rules: tuple[LoweredRule, ...]


@attrs.define
class PolicySet:
    """The policies of one policy id, and its rows: {direction, remote} -> class."""

    number: int
    members: tuple[LoweredPolicy, ...]
    ports: NamedPorts
    """Of the endpoints that have it, where an ingress rule names one."""
    defaults: dict[Direction, Defaults]
    rows: dict[RowKey, int] = attrs.field(factory=dict)
    by_peer: dict[LoweredPeer, list[LoweredRule]] = attrs.field(factory=dict)
    always: dict[Direction, list[LoweredRule]] = attrs.field(factory=dict)
    port_names: set[str] = attrs.field(factory=set)
    """Named by rules for everybody: who has such a port is ruled apart."""


class SubjectIndex:
    """Which policies are about an endpoint, without asking all of them."""

    def __init__(self, policies: Sequence[LoweredPolicy]) -> None:
        self._anchored: defaultdict[tuple[str, str], list[tuple[int, LoweredPolicy]]]
        self._anchored = defaultdict(list)
        self._loose: list[tuple[int, LoweredPolicy]] = []
        for place, each in enumerate(policies):
            anchor = anchor_of(each.policy.subject)
            if anchor is None:
                self._loose.append((place, each))
                continue
            for value in anchor.values:
                self._anchored[anchor.key, value].append((place, each))

    def matching(self, labels: Mapping[str, str]) -> tuple[LoweredPolicy, ...]:
        """In the order of the policies."""
        found = list(self._loose)
        for pair in labels.items():
            found += self._anchored.get(pair, ())
        chosen = [each for each in found if each[1].policy.subject.matches(labels)]
        return tuple(policy for _, policy in sorted(chosen, key=lambda each: each[0]))


def entry_of(rule: LoweredRule, ports: NamedPorts, *, specific: bool) -> Entry:
    resolved = None if rule.ports is None else _resolved(rule.ports, ports)
    return Entry(rule.number, resolved, rule.deny, rule.audit, specific, rule.origin)


def _resolved(ports: Iterable[PortRange | NamedPort], named: NamedPorts) -> tuple[PortRange, ...]:
    """A name that the endpoint does not have is no port."""
    found: list[PortRange] = []
    for port in ports:
        if isinstance(port, PortRange):
            found.append(port)
            continue
        wanted = PROTOCOLS.values() if port.protocol is None else (port.protocol,)
        found += [PortRange(p, n, n) for name, p, n in sorted(named)
                  if name == port.name and p in wanted]  # fmt: skip
    return tuple(found)


def port_names(members: Iterable[LoweredPolicy], direction: Direction) -> set[str]:
    return {
        port.name
        for each in members
        for rule in each.rules
        if rule.direction is direction
        for port in rule.ports or ()
        if isinstance(port, NamedPort)
    }


def defaults_of(members: Iterable[LoweredPolicy]) -> dict[Direction, Defaults]:
    policies = [each.policy for each in members]
    origins = sorted({policy.origin for policy in policies} - {""})

    def wants(origin: str, direction: Direction, *, audit: bool) -> bool:
        return any(
            direction in policy.default_deny and policy.audit is audit
            for policy in policies
            if policy.origin == origin
        )

    def of(origin: str, direction: Direction) -> Defaults:
        return Defaults(
            deny=wants(origin, direction, audit=False),
            audit_deny=wants(origin, direction, audit=True),
        )

    return {
        direction: attrs.evolve(
            of("", direction),
            others=tuple((origin, of(origin, direction)) for origin in origins),
        )
        for direction in Direction
    }
