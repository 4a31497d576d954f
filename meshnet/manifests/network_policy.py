"""networking.k8s.io/v1 NetworkPolicy.

Source: the Kubernetes API reference, NetworkPolicySpec; what the reference leaves to the
implementation is done as Cilium does it (an ipBlock never selects an endpoint).
"""

from __future__ import annotations

from ipaddress import IPv4Network

from meshnet.manifests.metadata import Metadata
from meshnet.manifests.ports import read_kubernetes_ports
from meshnet.manifests.reader import Fields, Reader
from meshnet.manifests.selectors import read_selector
from meshnet.model.addressing import Prefix
from meshnet.model.identity import NAMESPACE_LABEL, NAMESPACE_META_PREFIX
from meshnet.model.policy import (
    CidrPeer,
    Direction,
    EndpointPeer,
    Operator,
    Peer,
    Policy,
    Requirement,
    Rule,
    Selector,
)

AUDIT_ANNOTATION = "meshnet.io/audit"
"""`"true"`: what the policy would deny passes and is reported with the verdict AUDIT."""
NOWHERE = IPv4Network("0.0.0.0/32")
"""Stands for a CIDR that could not be read."""
_TYPES = {"Ingress": Direction.INGRESS, "Egress": Direction.EGRESS}
_PEERS = {Direction.INGRESS: "from", Direction.EGRESS: "to"}


def is_audit(metadata: Metadata, document: Fields) -> bool:
    value = metadata.annotations.get(AUDIT_ANNOTATION, "false")
    if value not in ("true", "false"):
        document.reader.fault(f'annotation {AUDIT_ANNOTATION} must be "true" or "false"',
                              show=False)  # fmt: skip
    return value == "true"


def read_network_policy(document: Fields, metadata: Metadata) -> tuple[Policy, ...]:
    reader = document.require("spec")
    if reader is None:
        return ()
    spec = reader.fields()
    subject = spec.take("podSelector")  # absent is empty: it selects all
    selector = read_selector(subject) if subject else Selector()
    rules: list[Rule] = []
    for direction in Direction:
        if section := spec.take(direction.value):
            for item in section.items():
                rules.append(_rule(item, direction, metadata.namespace))
    default_deny = _types(spec, has_egress=any(r.direction is Direction.EGRESS for r in rules))
    spec.close()
    return (
        Policy(
            kind="NetworkPolicy",
            namespace=metadata.namespace,
            name=metadata.name,
            subject=selector.narrowed(NAMESPACE_LABEL, metadata.namespace),
            # rules of a direction that policyTypes leaves out have no effect
            rules=tuple(rule for rule in rules if rule.direction in default_deny),
            default_deny=default_deny,
            audit=is_audit(metadata, document),
        ),
    )


def _types(spec: Fields, *, has_egress: bool) -> frozenset[Direction]:
    """Ingress always, Egress where there are egress rules, unless policyTypes says it."""
    given = spec.take("policyTypes")
    if given is not None and given.value:
        return frozenset(item.choice(_TYPES, Direction.INGRESS) for item in given.items())
    return frozenset(Direction) if has_egress else frozenset({Direction.INGRESS})


def _rule(reader: Reader, direction: Direction, namespace: str) -> Rule:
    fields = reader.fields()
    given, ports = fields.take(_PEERS[direction]), fields.take("ports")
    fields.close()
    peers = tuple(_peer(item, namespace) for item in given.items()) if given else ()
    return Rule(
        direction=direction,
        place=reader.path,
        peers=peers or None,  # empty or absent: anybody
        ports=read_kubernetes_ports(ports) if ports and ports.value else None,
    )


def _peer(reader: Reader, namespace: str) -> Peer:
    fields = reader.fields()
    pods, namespaces, block = (
        fields.take("podSelector"), fields.take("namespaceSelector"), fields.take("ipBlock")
    )  # fmt: skip
    fields.close()
    if block is not None:
        if pods or namespaces:
            reader.fault("ipBlock stands alone: no selector beside it", show=False)
        return _block(block)
    if pods is None and namespaces is None:
        reader.fault("needs podSelector, namespaceSelector or ipBlock", show=False)
    selector = read_selector(pods) if pods else Selector()
    if namespaces is None:
        return EndpointPeer(selector.narrowed(NAMESPACE_LABEL, namespace))
    wanted = read_selector(namespaces, prefix=NAMESPACE_META_PREFIX)
    # endpoints alone have a namespace, so this keeps nodes and the world out
    everywhere = Requirement(NAMESPACE_LABEL, Operator.EXISTS)
    return EndpointPeer(Selector(selector.requirements | wanted.requirements).requiring(everywhere))


def _block(reader: Reader) -> CidrPeer:
    fields = reader.fields()
    cidr, excepts = fields.require("cidr"), fields.take("except")
    fields.close()
    prefix = cidr.prefix() if cidr else None
    if prefix is None:
        return CidrPeer(NOWHERE)
    return CidrPeer(prefix, read_excepts(excepts, prefix))


def read_excepts(reader: Reader | None, prefix: Prefix) -> frozenset[Prefix]:
    """Prefixes inside `prefix`, and smaller."""
    found = set()
    for item in reader.items() if reader else ():
        each = item.prefix()
        if each is None:
            continue
        inside = each.version == prefix.version and each.subnet_of(prefix)  # type: ignore[arg-type]
        if not inside or each == prefix:
            item.fault(f"must lie inside {prefix}")
        found.add(each)
    return frozenset(found)
