"""What policies see of services: whose labels they select, and which hosts they name.

Sources: Cilium's Documentation/security/policy/layer3.rst ("Services based").
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from meshnet.model.addressing import Prefix, host_prefix
from meshnet.model.identity import CLUSTER_LABEL, NAMESPACE_LABEL
from meshnet.model.policy import Operator, Policy, PolicyService, Requirement, Selector, ServicePeer
from meshnet.model.service import EndpointSlice, Service, ServiceType


def name_services(policies: Iterable[Policy]) -> bool:
    """Whether any of them has to be told about services at all."""
    return any(
        isinstance(peer, ServicePeer)
        for policy in policies
        for rule in policy.rules
        for peer in rule.peers or ()
    )


def policy_services(
    services: Iterable[Service], slices: Iterable[EndpointSlice], cluster: str
) -> tuple[PolicyService, ...]:
    """Every service that has anybody behind it, wherever and however it is doing: who is not
    ready now is a backend in a moment. An ExternalName is only a name."""
    hosts: defaultdict[tuple[str, str], set[Prefix]] = defaultdict(set)
    for each in slices:
        for endpoint in each.endpoints:
            hosts[each.service_key].update(map(host_prefix, endpoint.addresses))
    return tuple(
        PolicyService(
            namespace=service.namespace,
            name=service.name,
            labels=service.labels,
            backends=_backends(service, cluster),
            hosts=frozenset(hosts.get(service.key, ())),
        )
        for service in services
        if service.type is not ServiceType.EXTERNAL_NAME
    )


def _backends(service: Service, cluster: str) -> Selector | None:
    """The endpoints it selects: here, or of a global one in every cluster, where the same
    name means the same service."""
    if not service.selector:
        return None
    wanted = {**service.selector, NAMESPACE_LABEL: service.namespace}
    selector = Selector(
        frozenset(Requirement(k, Operator.IN, frozenset({v})) for k, v in wanted.items())
    )
    if service.sharing.is_global:
        return selector.requiring(Requirement(CLUSTER_LABEL, Operator.EXISTS))
    return selector.narrowed(CLUSTER_LABEL, cluster)
