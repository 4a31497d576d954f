"""cilium.io/v2 CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy, what L3 and L4 have.

Source: Cilium's pkg/policy/api (rule.go, ingress.go, egress.go, l4.go, icmp.go) and
pkg/k8s/apis/cilium.io/utils (which namespace a selector means).
"""

from __future__ import annotations

from meshnet.manifests.cilium_peers import read_peers
from meshnet.manifests.metadata import Metadata
from meshnet.manifests.network_policy import is_audit
from meshnet.manifests.ports import read_cilium_ports, read_icmps
from meshnet.manifests.reader import Fields, Reader
from meshnet.manifests.selectors import read_selector
from meshnet.model.identity import NAMESPACE_LABEL
from meshnet.model.policy import (
    Direction,
    Policy,
    Port,
    Rule,
    Selector,
)

SECTIONS = {
    "ingress": (Direction.INGRESS, False),
    "ingressDeny": (Direction.INGRESS, True),
    "egress": (Direction.EGRESS, False),
    "egressDeny": (Direction.EGRESS, True),
}
_L7 = "it needs a proxy that looks into the stream; select by ports instead"
_PORT_RULE_REFUSED = {
    "rules": _L7,
    "terminatingTLS": _L7,
    "originatingTLS": _L7,
    "serverNames": _L7,
    "listener": _L7,
}


def read_cilium_policy(document: Fields, metadata: Metadata) -> tuple[Policy, ...]:
    """One Policy a rule: `spec` is one, `specs` a list of them."""
    document.ignore("status")
    spec, specs = document.take("spec"), document.take("specs")
    readers = [*([spec] if spec else []), *(specs.items() if specs else [])]
    if not readers:
        document.reader.fault("needs spec or specs", show=False)
    kind = document.reader.value["kind"]
    audit = is_audit(metadata, document)
    return tuple(_policy(each, kind, metadata, audit=audit) for each in readers)


def _policy(reader: Reader, kind: str, metadata: Metadata, *, audit: bool) -> Policy:
    fields = reader.fields()
    fields.refuse({
        "nodeSelector": "policy is about endpoints; the node's own packets have no policy yet",
        "log": "events carry the rule's name",
    })  # fmt: skip
    fields.ignore("description", "labels")
    subject = fields.require("endpointSelector")
    selector = read_selector(subject, sources=True) if subject else Selector()
    rules: list[Rule] = []
    for name, (direction, deny) in SECTIONS.items():
        if section := fields.take(name):
            rules += [_rule(each, direction, deny, metadata.namespace) for each in section.items()]
    default_deny = _default_deny(fields, rules)
    fields.close()
    if not rules and not default_deny:
        reader.fault(f"needs at least one rule in {', '.join(SECTIONS)}", show=False)
    return Policy(
        kind=kind,
        namespace=metadata.namespace,
        name=metadata.name,
        subject=_own_namespace(subject, selector, metadata.namespace),
        rules=tuple(rules),
        default_deny=default_deny,
        audit=audit,
    )


def _own_namespace(reader: Reader | None, selector: Selector, namespace: str) -> Selector:
    """A CiliumNetworkPolicy is about its own namespace alone."""
    if not namespace:
        return selector
    own = selector.narrowed(NAMESPACE_LABEL, namespace)
    said = {r for r in own.requirements if r.key == NAMESPACE_LABEL}
    if reader is not None and not all(r.holds({NAMESPACE_LABEL: namespace}) for r in said):
        reader.fault(f"selects another namespace than the policy's own, {namespace}", show=False)
    return own


def _default_deny(fields: Fields, rules: list[Rule]) -> frozenset[Direction]:
    """Where there are rules, unless enableDefaultDeny says otherwise."""
    found = {rule.direction for rule in rules}
    if given := fields.take("enableDefaultDeny"):
        switches = given.fields()
        for direction in Direction:
            if (switch := switches.take(direction.value)) is not None:
                (found.add if switch.truth() else found.discard)(direction)
        switches.close()
    return frozenset(found)


def _rule(reader: Reader, direction: Direction, deny: bool, namespace: str) -> Rule:
    fields = reader.fields()
    fields.refuse({"authentication": "there is no mutual authentication between endpoints"})
    peers = read_peers(fields, direction, namespace)
    has_ports = fields.take("toPorts"), fields.take("icmps")
    fields.close()
    ports = _ports(*has_ports)
    if peers is None and ports is None and not any(each is not None for each in has_ports):
        peers = ()  # `- {}`: a rule that names nobody allows nobody, as Cilium's
    return Rule(direction, reader.path, peers, ports, deny)


def _ports(to_ports: Reader | None, icmps: Reader | None) -> tuple[Port, ...] | None:
    """None: everything. A list of no rules is as if it were not there."""
    found: list[Port] = []
    everything = True
    for item in to_ports.items() if to_ports else ():
        fields = item.fields()
        fields.refuse(_PORT_RULE_REFUSED)
        listed = fields.take("ports")
        fields.close()
        ports = read_cilium_ports(listed) if listed else None
        if ports is None:
            return None
        found += ports
        everything = False
    if icmps is not None and icmps.value:
        if to_ports is not None and to_ports.value:
            icmps.fault("cannot stand beside toPorts in one rule: write two rules", show=False)
        found += read_icmps(icmps)
        everything = False
    return None if everything else tuple(found)
