"""A second opinion on policy: one packet, one question, answered rule by rule.

Written apart from `meshnet.logic`: no classes, no prefixes of ports, no indices. It is slow
and is meant to be read against the documentation of Kubernetes and Cilium.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

import attrs

from meshnet.model.policy import (
    CidrGroupPeer,
    CidrPeer,
    Direction,
    EndpointPeer,
    Entity,
    EntityPeer,
    Named,
    NamedPort,
    Operator,
    Peer,
    Policy,
    Port,
    Rule,
    Selector,
    ServicePeer,
)

CLUSTER = "io.cilium.k8s.policy.cluster"
NODES = {1, 6}
CLUSTER_NUMBERS = {1, 3, 4, 5, 6, 7, 8}
BY_ENTITY = {"host": 1, "unmanaged": 3, "health": 4, "init": 5, "remote-node": 6, "ingress": 8}


@attrs.frozen(kw_only=True)
class Party:
    """One end of a packet: an endpoint, a reserved identity, or an address of the world."""

    labels: Mapping[str, str] = attrs.field(factory=dict)
    number: int = 0
    """Of a reserved identity."""
    address: str = ""
    """Of the world."""
    ports: Mapping[str, tuple[int, int]] = attrs.field(factory=dict)
    """Named ports: name -> (protocol, number)."""


def verdict(
    policies: Iterable[Policy],
    named: Named,
    direction: Direction,
    endpoint: Party,
    peer: Party,
    protocol: int,
    port: int,
    *,
    cluster: str = "east",
    local_only: bool = True,
) -> str:
    """`allow`, `deny` or `audit` for the endpoint's side of it: the worst that any cluster's
    policies say."""
    selecting = [p for p in policies if _matches(p.subject, endpoint.labels)]
    said = {
        _verdict_of_one(
            [p for p in selecting if p.origin == origin],
            attrs.evolve(named, groups=tuple(g for g in named.groups if g.origin == origin)),
            direction, endpoint, peer, protocol, port, cluster, local_only,
        )
        for origin in {policy.origin for policy in selecting}
    }  # fmt: skip
    return "deny" if "deny" in said else "audit" if "audit" in said else "allow"


def _verdict_of_one(
    mine: list[Policy],
    named: Named,
    direction: Direction,
    endpoint: Party,
    peer: Party,
    protocol: int,
    port: int,
    cluster: str,
    local_only: bool,
) -> str:
    receiver = endpoint if direction is Direction.INGRESS else peer

    def passes(chosen: list[Policy]) -> bool:
        hits = [
            rule
            for policy in chosen
            for rule in policy.rules
            if rule.direction is direction
            and _is_about(rule, peer, named, cluster, local_only)
            and _covers(rule.ports, receiver, protocol, port)
        ]
        if any(rule.deny for rule in hits):
            return False
        if hits:
            return True
        return not any(direction in policy.default_deny for policy in chosen)

    if not passes([policy for policy in mine if not policy.audit]):
        return "deny"
    return "allow" if passes(mine) else "audit"


def _is_about(rule: Rule, peer: Party, named: Named, cluster: str, local_only: bool) -> bool:
    if rule.peers is None:
        return True
    return any(_is(each, peer, named, cluster, local_only) for each in rule.peers)


def _is(wanted: Peer, peer: Party, named: Named, cluster: str, local_only: bool) -> bool:
    match wanted:
        case EntityPeer(entity):
            return _entity(entity, peer, cluster)
        case EndpointPeer(selector):
            keys = {requirement.key for requirement in selector.requirements}
            names_cluster = any(key.startswith(CLUSTER) for key in keys)
            names_reserved = any(key.startswith("reserved:") for key in keys)
            here = peer.labels.get(CLUSTER) == cluster
            anywhere = not local_only or names_cluster or names_reserved
            return (anywhere or here) and _matches(selector, peer.labels)
        case CidrPeer(prefix, excepted):
            if not peer.address:
                return False
            address = ip_address(peer.address)
            return address in prefix and not any(address in each for each in excepted)
        case CidrGroupPeer(name, chosen, excepted):
            if not peer.address:
                return False
            address = ip_address(peer.address)
            return any(
                address in prefix
                for group in named.groups
                if group.name == name or (chosen and _matches(chosen, group.labels))
                for prefix in group.prefixes
            ) and not any(address in each for each in excepted)
        case ServicePeer(namespace, name, chosen):
            return any(
                (peer.address and any(ip_address(peer.address) in h for h in service.hosts))
                or (service.backends and _matches(service.backends, peer.labels))
                for service in named.services
                if namespace in ("", service.namespace)
                and (service.name == name or (chosen and _matches(chosen, service.labels)))
            )
    raise AssertionError(wanted)


def _entity(entity: Entity, peer: Party, cluster: str) -> bool:
    if entity is Entity.ALL:
        return True
    if entity is Entity.WORLD:
        return bool(peer.address)
    if entity is Entity.WORLD_IPV4:
        return "." in peer.address
    if entity is Entity.WORLD_IPV6:
        return ":" in peer.address
    if entity is Entity.CLUSTER:
        return peer.labels.get(CLUSTER) == cluster or peer.number in CLUSTER_NUMBERS
    return entity is not Entity.NONE and peer.number == BY_ENTITY[entity.value]


def _matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    for wanted in selector.requirements:
        there = wanted.key in labels
        listed = labels.get(wanted.key) in wanted.values
        if wanted.operator is Operator.IN and not (there and listed):
            return False
        if wanted.operator is Operator.NOT_IN and there and listed:
            return False
        if wanted.operator is Operator.EXISTS and not there:
            return False
        if wanted.operator is Operator.DOES_NOT_EXIST and there:
            return False
    return True


def _covers(ports: tuple[Port, ...] | None, receiver: Party, protocol: int, port: int) -> bool:
    if ports is None:
        return True
    for each in ports:
        if isinstance(each, NamedPort):
            if each.protocol not in (None, protocol):
                continue
            if receiver.ports.get(each.name) == (protocol, port):
                return True
        elif each.protocol == protocol and each.first <= port <= each.last:
            return True
    return False
