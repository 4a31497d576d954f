"""Who a Cilium rule is about: fromEndpoints, toCIDRSet, toEntities and their like."""

from __future__ import annotations

from collections.abc import Callable

from meshnet.manifests.network_policy import NOWHERE, read_excepts
from meshnet.manifests.reader import Fields, Reader
from meshnet.manifests.selectors import read_selector
from meshnet.model import names
from meshnet.model.identity import NAMESPACE_LABEL, NAMESPACE_META_PREFIX
from meshnet.model.policy import (
    CidrGroupPeer,
    CidrPeer,
    Direction,
    EndpointPeer,
    Entity,
    EntityPeer,
    Operator,
    Peer,
    Requirement,
    Selector,
    ServicePeer,
)

PREFIX = {Direction.INGRESS: "from", Direction.EGRESS: "to"}
_ENTITIES = {entity.value: entity for entity in Entity}
_REQUIRES = "Cilium gave it up; write the requirement into each rule's selector"
_REFUSED = {
    Direction.INGRESS: {
        "fromRequires": _REQUIRES,
        "fromNodes": "select nodes by entity host or remote-node, or by CIDR",
        "fromGroups": "groups of a cloud are not asked for; list their CIDRs",
    },
    Direction.EGRESS: {
        "toRequires": _REQUIRES,
        "toNodes": "select nodes by entity host or remote-node, or by CIDR",
        "toGroups": "groups of a cloud are not asked for; list their CIDRs",
        "toFQDNs": "names are not resolved for policy; list the CIDRs",
    },
}


def read_peers(fields: Fields, direction: Direction, namespace: str) -> tuple[Peer, ...] | None:
    """None: the rule names nobody, so it is about everybody. One kind of peer a rule."""
    fields.refuse(_REFUSED[direction])
    prefix = PREFIX[direction]
    kinds: dict[str, Callable[[Reader], Peer]] = {
        "Endpoints": lambda item: _endpoints(item, namespace),
        "CIDR": _cidr,
        "CIDRSet": _cidr_set,
        "Entities": _entity,
    }
    if direction is Direction.EGRESS:
        kinds["Services"] = _service
    found: dict[str, tuple[Peer, ...]] = {}
    for name, read in kinds.items():
        section = fields.take(prefix + name)
        if section is not None and section.value is not None:
            found[prefix + name] = tuple(read(item) for item in section.items())
    if len([name for name in found if found[name]]) > 1:
        fields.reader.fault(
            f"combining {' and '.join(found)} in one rule is not supported: write one rule each",
            show=False,
        )
    if not found:
        return None
    return tuple(peer for peers in found.values() for peer in peers)


def _endpoints(reader: Reader, namespace: str) -> EndpointPeer:
    """The policy's own namespace is meant where the selector names none."""
    selector = read_selector(reader, sources=True)
    if selector.mentions("reserved:"):
        return EndpointPeer(selector)
    if selector.mentions(NAMESPACE_LABEL) or selector.mentions(NAMESPACE_META_PREFIX):
        return EndpointPeer(selector)
    if namespace:
        return EndpointPeer(selector.narrowed(NAMESPACE_LABEL, namespace))
    return EndpointPeer(selector.requiring(Requirement(NAMESPACE_LABEL, Operator.EXISTS)))


def _cidr(reader: Reader) -> CidrPeer:
    return CidrPeer(reader.prefix() or NOWHERE)


def _cidr_set(reader: Reader) -> Peer:
    fields = reader.fields()
    cidr, name, selected, excepts = (
        fields.take("cidr"), fields.take("cidrGroupRef"), fields.take("cidrGroupSelector"),
        fields.take("except"),
    )  # fmt: skip
    fields.close()
    if sum(each is not None for each in (cidr, name, selected)) != 1:
        reader.fault("needs exactly one of cidr, cidrGroupRef, cidrGroupSelector", show=False)
    if cidr is not None:
        prefix = cidr.prefix() or NOWHERE
        return CidrPeer(prefix, read_excepts(excepts, prefix))
    excepted = {item.prefix() for item in excepts.items()} if excepts else set()
    kept = frozenset(prefix for prefix in excepted if prefix is not None)
    if name is not None:
        return CidrGroupPeer(name.text(), None, kept)
    chosen = read_selector(selected, sources=True) if selected else Selector()
    return CidrGroupPeer(None, chosen, kept)


def _entity(reader: Reader) -> EntityPeer:
    if reader.value == "kube-apiserver":
        reader.fault("is refused: there is no Kubernetes API server here; list its CIDRs")
        return EntityPeer(Entity.NONE)
    return EntityPeer(reader.choice(_ENTITIES, Entity.NONE))


def _service(reader: Reader) -> ServicePeer:
    """By name, or by the labels of the Service object; without a namespace in every one."""
    fields = reader.fields()
    named, selected = fields.take("k8sService"), fields.take("k8sServiceSelector")
    fields.close()
    if (named is None) == (selected is None):
        reader.fault("needs exactly one of k8sService, k8sServiceSelector", show=False)
    if named is not None:
        inner = named.fields()
        name = inner.require("serviceName")
        text = name.checked(lambda t: names.rfc1123_label("service", t)) if name else ""
        peer = ServicePeer(_namespace(inner), text)
        inner.close()
        return peer
    if selected is None:
        return ServicePeer("", None)
    inner = selected.fields()
    wanted = inner.require("selector")
    selector = read_selector(wanted, sources=True) if wanted else None
    peer = ServicePeer(_namespace(inner), None, selector)
    inner.close()
    return peer


def _namespace(fields: Fields) -> str:
    found = fields.take("namespace")
    if found is None or found.value == "":
        return ""
    return found.checked(lambda text: names.rfc1123_label("namespace", text))
