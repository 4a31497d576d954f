"""discovery.k8s.io/v1 EndpointSlice: backends of a service that no selector finds.

Source: the Kubernetes API reference, EndpointSlice. Conditions that are not given count as
the reference says: ready and serving yes, terminating no.
"""

from __future__ import annotations

from ipaddress import ip_address

from meshnet.manifests.metadata import Metadata
from meshnet.manifests.reader import Fields, Reader
from meshnet.manifests.service import PROTOCOLS
from meshnet.model.addressing import Address
from meshnet.model.service import EndpointSlice, Protocol, SliceEndpoint, SlicePort

SERVICE_NAME = "kubernetes.io/service-name"
_TYPES = {"IPv4": 4, "IPv6": 6}


def read_endpoint_slice(document: Fields, metadata: Metadata) -> EndpointSlice:
    kind, endpoints, ports = (
        document.require("addressType"), document.require("endpoints"), document.take("ports")
    )  # fmt: skip
    version = kind.choice(_TYPES, 4) if kind else 4
    if SERVICE_NAME not in metadata.labels:
        document.reader.fault(f"label {SERVICE_NAME} is missing: it names the service", show=False)
    return EndpointSlice(
        namespace=metadata.namespace,
        name=metadata.name,
        service=metadata.labels.get(SERVICE_NAME, ""),
        endpoints=tuple(_endpoint(item, version) for item in endpoints.items(most=1000))
        if endpoints
        else (),
        ports=tuple(_port(item) for item in ports.items(most=100)) if ports else (),
    )


def _endpoint(reader: Reader, version: int) -> SliceEndpoint:
    fields = reader.fields()
    addresses, conditions = fields.require("addresses"), fields.take("conditions")
    hostname, node = fields.take("hostname"), fields.take("nodeName")
    fields.ignore("targetRef", "zone", "hints", "deprecatedTopology")
    fields.close()
    ready, serving, terminating = _conditions(conditions)
    items = list(addresses.items(most=100)) if addresses else []
    if addresses and not items:
        addresses.fault("must name at least one address", show=False)
    return SliceEndpoint(
        addresses=tuple(a for item in items if (a := _address(item, version)) is not None),
        ready=ready,
        serving=serving,
        terminating=terminating,
        hostname=hostname.text() if hostname and hostname.value else "",
        node=node.text() if node and node.value else "",
    )


def _conditions(reader: Reader | None) -> tuple[bool, bool, bool]:
    if reader is None or reader.value is None:
        return True, True, False
    fields = reader.fields()
    found = {name: fields.take(name) for name in ("ready", "serving", "terminating")}
    fields.close()
    said = {n: item.truth() for n, item in found.items() if item and item.value is not None}
    ready = said.get("ready", True)
    return ready, said.get("serving", ready), said.get("terminating", False)


def _port(reader: Reader) -> SlicePort:
    fields = reader.fields()
    name, protocol, port = fields.take("name"), fields.take("protocol"), fields.require("port")
    fields.ignore("appProtocol")
    fields.close()
    return SlicePort(
        name=name.text() if name and name.value else "",
        port=port.integer(1, 65535) if port else 1,
        protocol=protocol.choice(PROTOCOLS, Protocol.TCP) if protocol else Protocol.TCP,
    )


def _address(reader: Reader, version: int) -> Address | None:
    try:
        found = ip_address(reader.text())
    except ValueError:
        reader.fault("must be an IP address")
        return None
    if found.version != version:
        reader.fault(f"must be an IPv{version} address, as addressType says")
    if found.is_loopback or found.is_multicast or found.is_unspecified or found.is_link_local:
        reader.fault("can be nobody's backend: it means something else on every node")
    return found
