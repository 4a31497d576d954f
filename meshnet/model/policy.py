"""A policy in the control plane's words: who it is about, and what it lets through.

Kubernetes' NetworkPolicy and Cilium's policies are both read into these types
(`meshnet/manifests`), so whatever resolves or explains them knows only this one form.
Label keys carry no source; reserved identities have the label `reserved:<name>`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from meshnet.model.addressing import Prefix

TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
"""IANA's numbers of what a policy may name; ICMP has types and no ports."""
PROTOCOL_NAMES = {TCP: "tcp", UDP: "udp", SCTP: "sctp", ICMP: "icmp", ICMPV6: "icmpv6"}
LAST_PORT = 65535


class Direction(enum.StrEnum):
    """Seen from the endpoint that the policy is about."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Operator(enum.StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@attrs.frozen
class Requirement:
    """One expression over one label (Kubernetes' LabelSelectorRequirement)."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:  # as Kubernetes: an absent label is in no set
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None


@attrs.frozen
class Selector:
    """All requirements hold; without any it selects everybody."""

    requirements: frozenset[Requirement] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.holds(labels) for requirement in self.requirements)

    def mentions(self, prefix: str) -> bool:
        """Whether any requirement is about a label whose key starts so."""
        return any(each.key.startswith(prefix) for each in self.requirements)

    def narrowed(self, key: str, value: str) -> Selector:
        """The same, and the label has this value."""
        return self.requiring(Requirement(key, Operator.IN, frozenset({value})))

    def requiring(self, requirement: Requirement) -> Selector:
        return Selector(self.requirements | {requirement})


class Entity(enum.StrEnum):
    """Groups of peers with a name of their own (Cilium: pkg/policy/api/entity.go)."""

    ALL = "all"
    CLUSTER = "cluster"
    """Endpoints of this cluster, and every node of the mesh."""
    HEALTH = "health"
    HOST = "host"
    INGRESS = "ingress"
    INIT = "init"
    NONE = "none"
    REMOTE_NODE = "remote-node"
    UNMANAGED = "unmanaged"
    WORLD = "world"
    WORLD_IPV4 = "world-ipv4"
    WORLD_IPV6 = "world-ipv6"


@attrs.frozen
class EndpointPeer:
    selector: Selector


@attrs.frozen
class EntityPeer:
    entity: Entity


@attrs.frozen
class CidrPeer:
    """Addresses that no identity covers: an endpoint or a node is never selected so."""

    prefix: Prefix
    excepted: frozenset[Prefix] = frozenset()


@attrs.frozen
class CidrGroupPeer:
    """The prefixes of all CiliumCIDRGroups that are selected, by name or by labels."""

    name: str | None
    selector: Selector | None = None
    excepted: frozenset[Prefix] = frozenset()


@attrs.frozen
class ServicePeer:
    """Whoever answers for the services that are meant, by name or by labels: traffic is
    translated before it is judged, so the peer is the backend and never the service's address."""

    namespace: str
    """Empty: of every namespace (Cilium: pkg/policy/k8s/service.go)."""
    name: str | None
    selector: Selector | None = None

    def means(self, service: PolicyService) -> bool:
        if self.namespace not in ("", service.namespace):
            return False
        if self.name is not None:
            return self.name == service.name
        return self.selector is not None and self.selector.matches(service.labels)


Peer = EndpointPeer | EntityPeer | CidrPeer | CidrGroupPeer | ServicePeer


@attrs.frozen
class PortRange:
    """Ports of one protocol, both ends included; of ICMP, the type is the port."""

    protocol: int
    first: int = 0
    last: int = LAST_PORT


@attrs.frozen
class NamedPort:
    """A port that its endpoint names: the receiving one, in both directions."""

    name: str
    protocol: int | None
    """None: TCP, UDP and SCTP."""


Port = PortRange | NamedPort


@attrs.frozen
class Rule:
    direction: Direction
    place: str
    """Where in the manifest, as `spec.ingress[0]`."""
    peers: tuple[Peer, ...] | None
    """None: anybody. Empty: nobody."""
    ports: tuple[Port, ...] | None = None
    """None: every protocol and port."""
    deny: bool = False


@attrs.frozen(kw_only=True)
class Policy:
    kind: str
    namespace: str
    """Empty for one that is of no namespace."""
    name: str
    subject: Selector
    """Whose packets it is about."""
    rules: tuple[Rule, ...]
    default_deny: frozenset[Direction]
    """Where an endpoint that it selects gets only what rules allow."""
    audit: bool = False
    """What it would deny passes, and is reported."""
    origin: str = ""
    """The cluster that asks for it; empty: this one. It opens nothing that another closes."""

    @property
    def title(self) -> str:
        """`CiliumNetworkPolicy default/web`, `... of cluster west`."""
        where = f"{self.namespace}/" if self.namespace else ""
        of = f" of cluster {self.origin}" if self.origin else ""
        return f"{self.kind} {where}{self.name}{of}"


@attrs.frozen(kw_only=True)
class PolicyService:
    """What policies see of a Service."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    backends: Selector | None
    """Of the endpoints behind it, with namespace and cluster; None: no selector."""
    hosts: frozenset[Prefix] = frozenset()
    """Those that EndpointSlices name, each a whole address."""


@attrs.frozen(kw_only=True)
class CidrGroup:
    """A CiliumCIDRGroup."""

    name: str
    labels: Mapping[str, str]
    prefixes: frozenset[Prefix]
    origin: str = ""
    """As a policy's: groups of one cluster mean nothing in policies of another."""


@attrs.frozen
class Named:
    """What peers say the name of, or the labels, instead of whom they mean."""

    groups: tuple[CidrGroup, ...] = ()
    services: tuple[PolicyService, ...] = ()

    def of(self, origin: str) -> Named:
        """For the policies of one cluster: services are always this one's."""
        return attrs.evolve(self, groups=tuple(g for g in self.groups if g.origin == origin))
