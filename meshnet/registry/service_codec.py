"""Services in etcd: Cilium's ClusterService, and whose a cluster address is.

Apart from codec.py only for its length; the rules are the same: a decoder raises
PoisonedKey and nothing else, and bytes for other clusters are Cilium's to the letter
(pkg/clustermesh/store/store.go).
"""

from __future__ import annotations

from collections.abc import Mapping

from meshnet.errors import ConfigError, PoisonedKey
from meshnet.model.addressing import Address, parse_address
from meshnet.model.service import BackendAddress, Protocol, RemoteService, parse_frontend
from meshnet.registry import schema, wire

Ports = Mapping[str, tuple[Protocol, int]]


def encode_service(service: RemoteService, selector: Mapping[str, str]) -> bytes:
    return wire.dump(
        wire.ClusterService(
            cluster=service.cluster,
            namespace=service.namespace,
            name=service.name,
            frontends={str(a): _ports(ports) for a, ports in _items(service.frontends)},
            backends={str(a): _ports(ports) for a, ports in _items(service.backends)},
            selector=dict(selector),
            includeExternal=True,
            shared=service.shared,
            clusterID=service.cluster_id,
        )
    )


def _items(by_address: Mapping[Address, Ports]) -> list[tuple[Address, Ports]]:
    return [(address, by_address[address]) for address in sorted(by_address, key=str)]


def _ports(ports: Ports) -> wire.PortConfiguration:
    return {name: wire.L4Addr(proto.name, port) for name, (proto, port) in sorted(ports.items())}


def decode_service(key: str, value: bytes) -> RemoteService:
    """The owner is named by the key: `.../<cluster>/<namespace>/<name>`."""
    read = wire.load(key, value, wire.ClusterService)
    cluster, namespace, name = key.rsplit("/", 3)[1:]
    if (read.namespace, read.name) != (namespace, name):
        raise PoisonedKey(key, f"namespaced name does not match key: {read.namespace}/{read.name}")
    if read.cluster != cluster:
        raise PoisonedKey(key, f"unexpected cluster name: got {read.cluster}, expected {cluster}")
    return RemoteService(
        cluster=cluster,
        cluster_id=read.clusterID,
        namespace=namespace,
        name=name,
        shared=read.shared,
        frontends=_addresses(key, read.frontends),
        backends=_addresses(key, read.backends),
    )


def _addresses(
    key: str, given: Mapping[str, wire.PortConfiguration | None] | None
) -> dict[Address, dict[str, tuple[Protocol, int]]]:
    found = {}
    for text, ports in (given or {}).items():
        try:
            address = parse_address(text)
        except ConfigError as error:
            raise PoisonedKey(key, str(error)) from error
        found[address] = {
            name: (Protocol[port.Protocol.upper()], port.Port)
            for name, port in (ports or {}).items()
            # SCTP and ANY, which Cilium may say, are nothing we could connect to
            if port.Protocol.upper() in Protocol.__members__ and 1 <= port.Port <= 65535
        }
    return found


def encode_service_address(namespace: str, name: str) -> bytes:
    return wire.dump(wire.ServiceAddress(namespace, name))


def decode_service_address(key: str, value: bytes) -> tuple[Address, tuple[str, str]]:
    """(address, namespace and name of the service that has it)."""
    read = wire.load(key, value, wire.ServiceAddress)
    try:
        return parse_address(schema.last_of(key)), (read.namespace, read.name)
    except ConfigError as error:
        raise PoisonedKey(key, str(error)) from error


def encode_health(failing: Mapping[BackendAddress, str]) -> bytes:
    return wire.dump(wire.Health({str(at): reason for at, reason in sorted(failing.items())}))


def decode_health(key: str, value: bytes) -> dict[BackendAddress, str]:
    """Backends of one node that fail their checks, and how."""
    read = wire.load(key, value, wire.Health)
    try:
        return {parse_frontend(text): reason for text, reason in read.failing.items()}
    except ConfigError as error:
        raise PoisonedKey(key, str(error)) from error
