"""What may be applied as a Service or an EndpointSlice beside those that are there.

A frontend is one service's, and no backend is a frontend: two services at one address and
port, or a service that answers for itself, would be settled by chance on each node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from meshnet.errors import Refused
from meshnet.manifests.kinds import meaning
from meshnet.model.addressing import Address, Prefix, contains
from meshnet.model.manifest import Manifest, ManifestKey
from meshnet.model.service import EndpointSlice, Service
from meshnet.registry.service_addresses import ServiceAddresses


class ServiceAdmission:
    """Kind Service: its cluster addresses, and external addresses that nobody else has.

    Args:
        taken: prefixes of the cluster with what their addresses are: no external ones.
    """

    def __init__(self, addresses: ServiceAddresses, taken: Mapping[Prefix, str]) -> None:
        self._addresses = addresses
        self._taken = taken

    async def admit(self, manifest: Manifest, stored: Sequence[Manifest]) -> None:
        """Raises Refused, AlreadyExists, PoolExhausted."""
        service: Service = meaning(manifest)
        for address in service.external_ips:
            for prefix, what in self._taken.items():
                if contains(prefix, address):
                    raise Refused(
                        f"{manifest.key}: external address {address} is {what} ({prefix}), whose "
                        "traffic it would take away: give an address of outside the cluster"
                    )
        for other in _of_kind(stored, "Service"):
            if other.key == service.key:
                continue
            for port in service.ports:
                for address in set(service.external_ips) & set(other.external_ips):
                    if any((p.port, p.protocol) == (port.port, port.protocol) for p in other.ports):
                        raise Refused(
                            f"{manifest.key}: external address {address} port "
                            f"{port.port}/{port.protocol.name} is service "
                            f"{'/'.join(other.key)}'s: take another port or address"
                        )
        for each in _of_kind(stored, "EndpointSlice"):
            _check_backends(str(manifest.key), each, service.external_ips)
        await self._addresses.settle(service)

    async def gone(self, key: ManifestKey) -> None:
        await self._addresses.release((key.namespace, key.name))


class SliceAdmission:
    """Kind EndpointSlice: its hosts are no service's address.

    Args:
        pools: the cluster's service CIDRs.
    """

    def __init__(self, pools: Sequence[Prefix]) -> None:
        self._pools = pools

    async def admit(self, manifest: Manifest, stored: Sequence[Manifest]) -> None:
        """Raises Refused."""
        found: EndpointSlice = meaning(manifest)
        for address in _addresses(found):
            for pool in self._pools:
                if contains(pool, address):
                    raise Refused(
                        f"{manifest.key}: backend {address} is in the service CIDR {pool}: a "
                        "backend is a host, not a service"
                    )
        for service in _of_kind(stored, "Service"):
            _check_backends(str(manifest.key), found, service.external_ips)

    async def gone(self, key: ManifestKey) -> None:
        """It has nothing beside its manifest."""


def _check_backends(what: str, found: EndpointSlice, external: Sequence[Address]) -> None:
    for address in _addresses(found):
        if address in external:
            raise Refused(
                f"{what}: {address} is a service's external address and a backend of "
                f"EndpointSlice {found.namespace}/{found.name}: a service cannot answer for itself"
            )


def _addresses(found: EndpointSlice) -> Iterator[Address]:
    for endpoint in found.endpoints:
        yield from endpoint.addresses


def _of_kind(stored: Sequence[Manifest], kind: str) -> Iterator[Any]:
    return (meaning(each) for each in stored if each.key.kind == kind)
