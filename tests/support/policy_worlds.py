"""Random worlds of policies, endpoints and the rest, small enough that rules meet."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

import attrs
from hypothesis import strategies as st

from meshnet.logic.peers import NamedPorts, Remote, plain_labels, reserved_remotes
from meshnet.logic.policy import PolicyTable
from meshnet.model.addressing import Prefix
from meshnet.model.identity import CLUSTER_LABEL, endpoint_labels
from meshnet.model.policy import (
    ICMP,
    SCTP,
    TCP,
    UDP,
    CidrGroup,
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
    PolicyService,
    Port,
    PortRange,
    Requirement,
    Rule,
    Selector,
    ServicePeer,
)
from tests.support.naive_policy import Party

PROTOCOLS = (TCP, UDP, SCTP, ICMP)
ADDRESSES = ("10.0.0.1", "10.0.1.1", "10.9.9.9", "8.8.8.8", "2001:db8::1", "2001:db8:1::1", "::1:1")
PREFIXES: tuple[Prefix, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.0/24", "10.0.1.1/32", "::/0",
        "2001:db8::/32", "2001:db8:1::/48",
    )
)  # fmt: skip
PORTS = (0, 1, 79, 80, 81, 443, 1024, 8080, 65535)
PROBES = (
    (TCP, 0), (TCP, 80), (TCP, 81), (TCP, 8080), (TCP, 65535), (UDP, 79), (UDP, 443), (SCTP, 80),
    (ICMP, 1), (47, 0),
)  # fmt: skip
"""Protocols and ports to ask about; 47 (GRE) is one that no rule names."""
NAMES = ("http", "dns")
GROUPS = ("office", "lab")
SERVICES = ("front", "store")
KEYS = ("app", "tier", "io.kubernetes.pod.namespace", "io.cilium.k8s.policy.cluster")
VALUES = ("a", "b", "east", "west")

expressions = st.builds(
    lambda key, operator, values: Requirement(
        key,
        operator,
        frozenset(values) if operator in (Operator.IN, Operator.NOT_IN) else frozenset(),
    ),
    st.sampled_from(KEYS),
    st.sampled_from(list(Operator)),
    st.sets(st.sampled_from(VALUES), min_size=1, max_size=2),
)
selectors = st.builds(Selector, st.frozensets(expressions, max_size=2))


def _excepted(prefix: Prefix) -> st.SearchStrategy[frozenset[Prefix]]:
    inside = [
        p
        for p in PREFIXES
        if p.version == prefix.version and p != prefix and p.subnet_of(prefix)  # type: ignore[arg-type]
    ]
    return st.frozensets(st.sampled_from(inside), max_size=2) if inside else st.just(frozenset())


NET = Selector(frozenset({Requirement("kind", Operator.IN, frozenset({"net"}))}))
"""Of the labels that some groups and some services have."""
peers: st.SearchStrategy[Peer] = st.one_of(
    st.builds(EndpointPeer, selectors),
    st.builds(EntityPeer, st.sampled_from(list(Entity))),
    st.sampled_from(PREFIXES).flatmap(lambda p: st.builds(CidrPeer, st.just(p), _excepted(p))),
    st.builds(
        CidrGroupPeer,
        st.sampled_from(GROUPS),
        st.none(),
        st.frozensets(st.sampled_from(PREFIXES), max_size=1),
    ),
    st.builds(CidrGroupPeer, st.none(), st.just(NET)),
    st.builds(ServicePeer, st.sampled_from(("", "a", "b")), st.sampled_from(SERVICES)),
    st.builds(ServicePeer, st.sampled_from(("", "a", "b")), st.none(), st.just(NET)),
)  # fmt: skip
ports: st.SearchStrategy[Port] = st.one_of(
    st.builds(
        lambda protocol, one, other: PortRange(protocol, min(one, other), max(one, other)),
        st.sampled_from(PROTOCOLS),
        st.sampled_from(PORTS),
        st.sampled_from(PORTS),
    ),
    st.builds(NamedPort, st.sampled_from(NAMES), st.sampled_from((None, TCP, UDP))),
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    return Rule(
        direction=draw(st.sampled_from(list(Direction))),
        place="",
        peers=draw(st.none() | st.lists(peers, max_size=2).map(tuple)),
        ports=draw(st.none() | st.lists(ports, max_size=3).map(tuple)),
        deny=draw(st.booleans() if draw(st.booleans()) else st.just(False)),
    )


origins = st.sampled_from(("", "", "west", "north"))


@st.composite
def policies(draw: st.DrawFn) -> list[Policy]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        given = draw(st.lists(rules(), max_size=3))
        found.append(
            Policy(
                kind="CiliumNetworkPolicy",
                namespace="default",
                name=f"p{number}",
                subject=draw(selectors),
                rules=tuple(
                    attrs.evolve(rule, place=f"spec.{place}") for place, rule in enumerate(given)
                ),
                default_deny=frozenset(draw(st.sets(st.sampled_from(list(Direction))))),
                audit=draw(st.integers(0, 4)) == 0,
                origin=draw(origins),
            )
        )
    return found


groups = st.lists(
    st.builds(
        CidrGroup,
        name=st.sampled_from(GROUPS),
        labels=st.sampled_from(({}, {"kind": "net"})),
        prefixes=st.frozensets(st.sampled_from(PREFIXES), max_size=2),
        origin=origins,
    ),
    max_size=3,
    unique_by=lambda group: (group.origin, group.name),
)
services = st.lists(
    st.builds(
        PolicyService,
        namespace=st.sampled_from(("a", "b")),
        name=st.sampled_from(SERVICES),
        labels=st.sampled_from(({}, {"kind": "net"})),
        backends=st.none()
        | st.builds(
            lambda selector, cluster: selector.requiring(cluster),
            selectors,
            st.sampled_from(
                (
                    Requirement(CLUSTER_LABEL, Operator.EXISTS),
                    Requirement(CLUSTER_LABEL, Operator.IN, frozenset({"east"})),
                )
            ),
        ),
        hosts=st.frozensets(st.sampled_from([ip_network(a) for a in ADDRESSES]), max_size=2),
    ),
    max_size=3,
    unique_by=lambda service: (service.namespace, service.name),
)
names = st.builds(Named, groups.map(tuple), services.map(tuple))

endpoints = st.builds(
    lambda user, namespace, cluster, named: Party(
        labels=plain_labels(endpoint_labels(user, namespace=namespace, cluster=cluster)),
        ports=named,
    ),
    st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("a", "b")), max_size=2),
    st.sampled_from(("a", "b")),
    st.sampled_from(("east", "west")),
    st.dictionaries(
        st.sampled_from(NAMES),
        st.tuples(st.sampled_from((TCP, UDP)), st.sampled_from(PORTS[1:])),
        max_size=2,
    ),
)


def named(ports: Mapping[str, tuple[int, int]]) -> NamedPorts:
    return frozenset((name, protocol, port) for name, (protocol, port) in ports.items())


def reserved() -> list[Party]:
    return [
        Party(number=remote.number, labels=remote.labels)
        for remote in reserved_remotes()
        if remote.number != 2
    ]


def remote_of(number: int, party: Party) -> Remote:
    return Remote(number=number, labels=party.labels, named_ports=named(party.ports))


def number_of(table: PolicyTable, party: Party, numbers: Mapping[int, int]) -> int:
    """What the ipcache would say of it: the longest of the prefixes that policies name."""
    if party.number:
        return party.number
    if not party.address:
        return numbers[id(party)]
    address = _mapped(party.address)
    found = [p for p in table.prefixes if _covers(p, address)]
    best = max(found, key=lambda p: p.prefixlen + (96 if p.version == 4 else 0), default=None)
    return 2 if best is None else table.prefixes[best]


def _mapped(text: str) -> int:
    value = int(ip_network(text).network_address)
    return value + (0xFFFF << 32) if "." in text else value


def _covers(prefix: Prefix, address: int) -> bool:
    """As the kernel's map sees it: everything in 128 bits, IPv4 in its mapped form."""
    length = prefix.prefixlen + (96 if prefix.version == 4 else 0)
    network = _mapped(str(prefix.network_address))
    return length == 0 or network >> (128 - length) == address >> (128 - length)
