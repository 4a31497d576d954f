"""v1 Service.

Source: the Kubernetes API reference, ServiceSpec, and its validation
(pkg/apis/core/validation). What concerns traffic from outside the mesh (node ports, load
balancer addresses) is read and kept; inside the mesh such a service is a ClusterIP.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from meshnet.manifests.metadata import Metadata
from meshnet.manifests.reader import Fields, Reader
from meshnet.manifests.sharing import read_check, read_sharing
from meshnet.model import names
from meshnet.model.addressing import Address
from meshnet.model.service import Protocol, Service, ServicePort, ServiceType

NONE = "None"
"""clusterIP of a headless service."""
AFFINITY_S = 10_800
AFFINITY_MOST_S = 86_400
PROTOCOLS = {protocol.name: protocol for protocol in Protocol}
_TYPES = {kind.value: kind for kind in ServiceType}
_FAMILIES = {"IPv4": 4, "IPv6": 6}
_POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")
_CLOSE = {"PreferClose": True, "PreferSameZone": True, "PreferSameNode": True}
_PORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OUTSIDE = (
    "externalTrafficPolicy", "loadBalancerIP", "loadBalancerClass", "loadBalancerSourceRanges",
    "allocateLoadBalancerNodePorts", "healthCheckNodePort",
)  # fmt: skip
"""Of traffic from outside the mesh."""


def read_service(document: Fields, metadata: Metadata) -> Service:
    empty = Service(namespace=metadata.namespace, name=metadata.name)
    reader = document.require("spec")
    if reader is None:
        return empty
    spec = reader.fields()
    kind = spec.take("type")
    found_type = kind.choice(_TYPES, ServiceType.CLUSTER_IP) if kind else ServiceType.CLUSTER_IP
    external = found_type is ServiceType.EXTERNAL_NAME
    headless, cluster_ips = _cluster_ips(spec)
    selector, publish, internal = (
        spec.take("selector"), spec.take("publishNotReadyAddresses"),
        spec.take("internalTrafficPolicy"),
    )  # fmt: skip
    distribution = spec.take("trafficDistribution")
    service = Service(
        namespace=metadata.namespace,
        name=metadata.name,
        labels=metadata.labels,
        type=found_type,
        ports=_ports(spec, needed=not (external or headless)),
        selector=_texts(selector) if selector else {},
        headless=headless,
        families=_families(spec, cluster_ips),
        cluster_ips=cluster_ips,
        external_ips=_addresses(spec.take("externalIPs")),
        external_name=_external_name(spec, wanted=external),
        affinity_s=_affinity(spec),
        internal_local=internal.choice({"Cluster": False, "Local": True}, False)
        if internal
        else False,
        prefer_close=distribution.choice(_CLOSE, False) if distribution else False,
        publish_not_ready=publish.truth() if publish else False,
        sharing=read_sharing(metadata, document),
        check=read_check(metadata, document),
    )
    spec.ignore(*_OUTSIDE)
    spec.close()
    return service


def _cluster_ips(spec: Fields) -> tuple[bool, tuple[Address, ...]]:
    """(headless, the addresses asked for). `clusterIP` is the first of `clusterIPs`."""
    one, several = spec.take("clusterIP"), spec.take("clusterIPs")
    given = [one] if one is not None and one.value not in ("", None) else []
    listed = list(several.items(most=2)) if several else []
    if given and listed and listed[0].value != given[0].value:
        listed[0].fault(f"must be clusterIP, which is {given[0].value!r}")
    chosen = listed or given
    if any(item.value == NONE for item in chosen):
        return True, ()
    addresses = tuple(a for item in chosen if (a := _address(item)) is not None)
    if len({address.version for address in addresses}) < len(addresses) and several:
        several.fault("must be one address of each family")
    return False, addresses


def _families(spec: Fields, cluster_ips: tuple[Address, ...]) -> tuple[int, ...]:
    """Kubernetes' rules: one family, IPv4, unless the manifest says otherwise."""
    listed, policy = spec.take("ipFamilies"), spec.take("ipFamilyPolicy")
    found = [item.choice(_FAMILIES, 4) for item in listed.items(most=2)] if listed else []
    found = list(dict.fromkeys([address.version for address in cluster_ips] + found)) or [4]
    wanted = policy.choice({name: name for name in _POLICIES}, "SingleStack") if policy else ""
    if wanted in ("PreferDualStack", "RequireDualStack") and len(found) == 1:
        found.append(10 - found[0])
    if wanted == "SingleStack" and len(found) > 1 and policy:
        policy.fault("has two families beside it: say PreferDualStack or RequireDualStack")
    return tuple(found)


def _ports(spec: Fields, *, needed: bool) -> tuple[ServicePort, ...]:
    reader = spec.require("ports") if needed else spec.take("ports")
    if reader is None:
        return ()
    items = list(reader.items(most=250))
    if needed and not items:
        reader.fault("must name at least one port", show=False)
    found = [_port(item, named=len(items) > 1) for item in items]
    seen: set[object] = set()
    for item, port in zip(items, found, strict=True):
        for mark, what in (
            ((port.port, port.protocol), f"port {port.port}/{port.protocol.name} twice"),
            (port.name, f"name {port.name!r} twice"),
        ):
            if mark in seen:
                item.fault(f"has {what}: each port and each name once", show=False)
            seen.add(mark)
    return tuple(found)


def _port(reader: Reader, *, named: bool) -> ServicePort:
    fields = reader.fields()
    name = fields.require("name") if named else fields.take("name")
    protocol, port, target = (
        fields.take("protocol"), fields.require("port"), fields.take("targetPort")
    )  # fmt: skip
    fields.ignore("nodePort", "appProtocol")
    fields.close()
    number = port.integer(1, 65535) if port else 1
    rule = "must be lower-case letters, digits and '-'"
    return ServicePort(
        name=name.text(_PORT_NAME, rule) if name and name.value else "",
        port=number,
        protocol=protocol.choice(PROTOCOLS, Protocol.TCP) if protocol else Protocol.TCP,
        target=_target(target, number) if target else number,
    )


def _target(reader: Reader, default: int) -> int | str:
    if isinstance(reader.value, str):
        return reader.text(_PORT_NAME, "must be a port's number or its name")
    return default if reader.value in (0, None) else reader.integer(1, 65535)


def _affinity(spec: Fields) -> int:
    kind, settings = spec.take("sessionAffinity"), spec.take("sessionAffinityConfig")
    chosen = kind.choice({"None": False, "ClientIP": True}, False) if kind else False
    seconds = AFFINITY_S
    if settings and settings.value is not None:
        fields = settings.fields()
        if client := fields.take("clientIP"):
            inner = client.fields()
            if timeout := inner.take("timeoutSeconds"):
                seconds = timeout.integer(1, AFFINITY_MOST_S)
            inner.close()
        fields.close()
    return seconds if chosen else 0


def _external_name(spec: Fields, *, wanted: bool) -> str:
    reader = spec.require("externalName") if wanted else spec.take("externalName")
    if reader is None or not (wanted or reader.value):
        return ""
    if not wanted:
        reader.fault("needs type ExternalName")
    return reader.checked(lambda text: names.dns_name("externalName", text.rstrip(".")))


def _texts(reader: Reader) -> dict[str, str]:
    if reader.value is None:
        return {}
    fields = reader.fields()
    taken = {key: fields.take(key) for key in reader.value} if reader.value else {}
    return {key: item.text() for key, item in taken.items() if item is not None}


def _addresses(reader: Reader | None) -> tuple[Address, ...]:
    items = reader.items() if reader else ()
    return tuple(address for item in items if (address := _address(item)) is not None)


def _address(reader: Reader) -> Address | None:
    try:
        return ip_address(reader.text())
    except ValueError:
        reader.fault("must be an IP address")
        return None
