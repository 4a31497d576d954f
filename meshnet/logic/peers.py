"""Whom a rule means: peers against what a packet's other end can be.

A remote is an identity with its labels, or a prefix that some policy names and no identity
covers. Prefixes get numbers of their own, above all identities that travel, in each node by
itself (Cilium: "local" identities): the dataplane then looks up one number, whatever it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network

import attrs

from meshnet.model.addressing import Prefix
from meshnet.model.identity import CLUSTER_LABEL, SOURCE, LabelSet, ReservedIdentity
from meshnet.model.policy import (
    CidrGroup,
    CidrGroupPeer,
    CidrPeer,
    EndpointPeer,
    Entity,
    EntityPeer,
    Named,
    Operator,
    Peer,
    PolicyService,
    Requirement,
    Selector,
    ServicePeer,
)

FIRST_PREFIX_NUMBER = 1 << 24
"""Of prefixes; an identity that travels has 24 bits."""
EVERY_IPV4: Prefix = ip_network("0.0.0.0/0")
EVERY_IPV6: Prefix = ip_network("::/0")
_MAPPED: Prefix = ip_network("::ffff:0:0/96")

_RESERVED_OF = {
    Entity.HOST: frozenset({ReservedIdentity.HOST}),
    Entity.REMOTE_NODE: frozenset({ReservedIdentity.REMOTE_NODE}),
    Entity.HEALTH: frozenset({ReservedIdentity.HEALTH}),
    Entity.INIT: frozenset({ReservedIdentity.INIT}),
    Entity.INGRESS: frozenset({ReservedIdentity.INGRESS}),
    Entity.UNMANAGED: frozenset({ReservedIdentity.UNMANAGED}),
    Entity.WORLD: frozenset({ReservedIdentity.WORLD}),
    Entity.NONE: frozenset[ReservedIdentity](),
    Entity.WORLD_IPV4: frozenset[ReservedIdentity](),
    Entity.WORLD_IPV6: frozenset[ReservedIdentity](),
    Entity.CLUSTER: frozenset(ReservedIdentity)
    - {ReservedIdentity.UNKNOWN, ReservedIdentity.WORLD},
    Entity.ALL: frozenset(ReservedIdentity),
}
LoweredPeer = EndpointPeer | EntityPeer | CidrPeer
"""A peer that is itself: groups were replaced by their prefixes, services by who is behind."""
NamedPorts = frozenset[tuple[str, int, int]]
"""(name, protocol, port)."""


@attrs.frozen(kw_only=True)
class Remote:
    number: int
    labels: Mapping[str, str] = attrs.field(factory=dict)
    """Without source."""
    prefix: Prefix | None = None
    named_ports: NamedPorts = frozenset()
    """Of all endpoints that have this identity."""


def reserved_remotes() -> list[Remote]:
    return [
        Remote(number=int(reserved), labels={_reserved_label(reserved): ""})
        for reserved in ReservedIdentity
        if reserved is not ReservedIdentity.UNKNOWN
    ]


def prefix_remote(number: int, prefix: Prefix) -> Remote:
    return Remote(
        number=number, prefix=prefix, labels={_reserved_label(ReservedIdentity.WORLD): ""}
    )


def _reserved_label(reserved: ReservedIdentity) -> str:
    return f"reserved:{reserved.name.lower().replace('_', '-')}"


def plain_labels(labels: LabelSet) -> dict[str, str]:
    """An identity's labels as selectors name them: ours without source."""
    return {key.removeprefix(f"{SOURCE}:"): value for key, value in labels.labels}


@attrs.frozen(kw_only=True)
class Scope:
    """What a peer means here."""

    cluster: str
    """This cluster's name."""
    local_only: bool = True
    """A selector that names no cluster means this one (Cilium 1.19's default)."""

    def lowered(self, peers: Iterable[Peer], named: Named) -> tuple[LoweredPeer, ...] | None:
        """Peers without names and defaults; None when one of them is everybody."""
        found: list[LoweredPeer] = []
        for peer in peers:
            match peer:
                case EntityPeer(Entity.ALL):
                    return None
                case EndpointPeer():
                    found.append(self._in_cluster(peer))
                case CidrGroupPeer():
                    found += _prefixes_of(peer, named.groups)
                case ServicePeer():
                    found += _backends_of(peer, named.services)
                case _:
                    found.append(peer)
        return tuple(found)

    def _in_cluster(self, peer: EndpointPeer) -> EndpointPeer:
        selector = peer.selector
        if not self.local_only or selector.mentions(CLUSTER_LABEL):
            return peer
        if selector.mentions("reserved:"):
            return peer
        return EndpointPeer(selector.narrowed(CLUSTER_LABEL, self.cluster))

    def selects(self, peer: LoweredPeer, remote: Remote) -> bool:
        match peer:
            case EndpointPeer(selector):
                return selector.matches(remote.labels)
            case CidrPeer(prefix, excepted):
                return _inside(remote.prefix, prefix) and not any(
                    _inside(remote.prefix, each) for each in excepted
                )
            case EntityPeer(entity):
                return self._is(entity, remote)

    def _is(self, entity: Entity, remote: Remote) -> bool:
        if remote.number in _RESERVED_OF[entity] or entity is Entity.ALL:
            return True
        if remote.prefix is not None:
            family = {Entity.WORLD_IPV4: 4, Entity.WORLD_IPV6: 6}.get(entity)
            return entity is Entity.WORLD or remote.prefix.version == family
        return entity is Entity.CLUSTER and remote.labels.get(CLUSTER_LABEL) == self.cluster


def _prefixes_of(peer: CidrGroupPeer, groups: Iterable[CidrGroup]) -> list[CidrPeer]:
    """A group that does not exist has no prefixes, as Cilium's."""
    return [
        CidrPeer(prefix, frozenset(e for e in peer.excepted if _inside(e, prefix)))
        for group in groups
        if (group.name == peer.name)
        or (peer.selector is not None and peer.selector.matches(group.labels))
        for prefix in sorted(group.prefixes, key=str)
        if not any(_inside(prefix, excepted) for excepted in peer.excepted)
    ]


def _backends_of(
    peer: ServicePeer, services: Iterable[PolicyService]
) -> Iterator[EndpointPeer | CidrPeer]:
    """A service that is not there has nobody behind it."""
    for service in services:
        if peer.means(service):
            if service.backends is not None:
                yield EndpointPeer(service.backends)
            yield from (CidrPeer(host) for host in sorted(service.hosts, key=str))


def _inside(inner: Prefix | None, outer: Prefix) -> bool:
    if inner is None or inner.version != outer.version:
        return False
    return inner.subnet_of(outer)  # type: ignore[arg-type]


def named_prefixes(peers: Iterable[LoweredPeer]) -> set[Prefix]:
    """What must have a number of its own so that these peers can be told apart."""
    found: set[Prefix] = set()
    for peer in peers:
        if isinstance(peer, CidrPeer):
            found |= {peer.prefix, *peer.excepted}
        elif isinstance(peer, EntityPeer) and peer.entity in (Entity.WORLD_IPV4, Entity.WORLD_IPV6):
            found |= {EVERY_IPV4, EVERY_IPV6}
    if any(_inside(_MAPPED, prefix) for prefix in found):
        found.add(EVERY_IPV4)  # maps hold IPv4 in its mapped form: it must not fall to ::/0
    return found


class Selections:
    """Which remotes each registered peer selects, kept true remote by remote.

    Selectors are found by an anchor, one label with the values it may have, so that a new
    remote is held against few of them however many there are.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.remotes: dict[int, Remote] = {}
        self.selected: dict[LoweredPeer, set[int]] = {}
        self.matched: dict[int, set[LoweredPeer]] = {}
        self.by_port_name: defaultdict[str, set[int]] = defaultdict(set)
        self._anchored: defaultdict[tuple[str, str], set[EndpointPeer]] = defaultdict(set)
        self._loose: set[EndpointPeer | EntityPeer] = set()
        self._cidrs: set[CidrPeer] = set()

    def register(self, peers: Iterable[LoweredPeer]) -> None:
        new = [peer for peer in peers if peer not in self.selected]
        if not new:
            return
        for peer in new:
            self.selected[peer] = set()
            self._index(peer, add=True)
        by_anchor = self._remotes_by_anchor(new)
        for peer in new:
            anchor = _anchor(peer)
            candidates: Iterable[int] = self.remotes
            if anchor is not None:
                candidates = [n for v in anchor.values for n in by_anchor[anchor.key, v]]
            for number in candidates:
                if self._scope.selects(peer, self.remotes[number]):
                    self.selected[peer].add(number)
                    self.matched[number].add(peer)

    def _remotes_by_anchor(
        self, peers: Iterable[LoweredPeer]
    ) -> defaultdict[tuple[str, str], list[int]]:
        keys = {anchor.key for peer in peers if (anchor := _anchor(peer)) is not None}
        found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for number, remote in self.remotes.items():
            for key in keys & remote.labels.keys():
                found[key, remote.labels[key]].append(number)
        return found

    def forget(self, peers: Iterable[LoweredPeer]) -> None:
        for peer in peers:
            self._index(peer, add=False)
            for number in self.selected.pop(peer, ()):
                self.matched[number].discard(peer)

    def upsert(self, remote: Remote) -> set[LoweredPeer]:
        """Answers every peer that selects it now or did before."""
        before = self.remove(remote.number)
        self.remotes[remote.number] = remote
        candidates: set[LoweredPeer] = set(self._loose)
        if remote.prefix is not None:
            candidates |= self._cidrs
        for pair in remote.labels.items():
            candidates |= self._anchored.get(pair, set())
        now = {peer for peer in candidates if self._scope.selects(peer, remote)}
        self.matched[remote.number] = now
        for peer in now:
            self.selected[peer].add(remote.number)
        for name, _, _ in remote.named_ports:
            self.by_port_name[name].add(remote.number)
        return before | now

    def remove(self, number: int) -> set[LoweredPeer]:
        before = self.matched.pop(number, set())
        for peer in before:
            self.selected[peer].discard(number)
        gone = self.remotes.pop(number, None)
        for name, _, _ in gone.named_ports if gone else ():
            self.by_port_name[name].discard(number)
        return before

    def _index(self, peer: LoweredPeer, *, add: bool) -> None:
        if isinstance(peer, CidrPeer):
            (self._cidrs.add if add else self._cidrs.discard)(peer)
            return
        anchor = _anchor(peer)
        if anchor is None or not isinstance(peer, EndpointPeer):
            (self._loose.add if add else self._loose.discard)(peer)
            return
        for value in anchor.values:
            indexed = self._anchored[anchor.key, value]
            (indexed.add if add else indexed.discard)(peer)


def _anchor(peer: LoweredPeer) -> Requirement | None:
    return anchor_of(peer.selector) if isinstance(peer, EndpointPeer) else None


def anchor_of(selector: Selector) -> Requirement | None:
    """The requirement that says most: a user's label before those that everybody has."""
    sets = [r for r in selector.requirements if r.operator is Operator.IN]
    return min(sets, key=_generality, default=None)


def _generality(requirement: Requirement) -> tuple[bool, bool, int, str]:
    key = requirement.key
    return (key == CLUSTER_LABEL, key.startswith("io."), len(requirement.values), key)
