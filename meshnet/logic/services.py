"""Who answers for a service: manifests, endpoints and other clusters' words, resolved.

Pure and level-triggered: the same world gives the same backends. What only time decides (a
slow shift between clusters, a slow return) is in logic/shares.py and logic/recovery.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import attrs

from meshnet.model.addressing import Address
from meshnet.model.endpoint import IpEntry
from meshnet.model.service import (
    Backend,
    BackendAddress,
    BackendState,
    EndpointSlice,
    Frontend,
    Protocol,
    RemoteService,
    Service,
    ServicePort,
    SliceEndpoint,
)

Key = tuple[str, str]
"""Namespace and name of a service."""
NOT_READY = "not ready"
STALE = "its node went without saying goodbye"
UNREACHABLE = "its node does not answer from here"


@attrs.frozen(kw_only=True)
class Candidate:
    """An endpoint of our own cluster that a selector may find."""

    entry: IpEntry
    labels: Mapping[str, str]
    """Full, without source."""
    stale: bool = False


@attrs.frozen(kw_only=True)
class World:
    """What the backends of services are made from."""

    cluster: str
    candidates: Iterable[Candidate]
    slices: Iterable[EndpointSlice]
    remotes: Iterable[RemoteService] = ()
    owners: Mapping[Address, tuple[str, str]] = attrs.field(factory=dict)
    """Who has an address: cluster and node. For backends of other clusters."""
    unreachable: frozenset[tuple[str, str]] = frozenset()
    """Nodes, by cluster and name, that do not answer this node."""
    failing: Mapping[BackendAddress, str] = attrs.field(factory=dict)
    """Backends that fail their health checks, and how."""


@attrs.frozen(kw_only=True)
class ResolvedPort:
    port: ServicePort
    backends: tuple[Backend, ...]


@attrs.frozen(kw_only=True)
class Resolved:
    """A service with all its backends, the ones that are out too."""

    service: Service
    addresses: tuple[Address, ...]
    ports: tuple[ResolvedPort, ...]

    def frontends(self) -> Iterator[tuple[Frontend, ResolvedPort]]:
        for resolved in self.ports:
            for address in (*self.addresses, *self.service.external_ips):
                yield Frontend(address, resolved.port.port, resolved.port.protocol), resolved


class Resolver:
    """One world, indexed once, for as many services as there are."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._candidates: defaultdict[str, list[Candidate]] = defaultdict(list)
        for candidate in world.candidates:
            self._candidates[candidate.entry.namespace].append(candidate)
        self._slices: defaultdict[Key, list[EndpointSlice]] = defaultdict(list)
        for each in world.slices:
            self._slices[each.service_key].append(each)
        self._remotes: defaultdict[Key, list[RemoteService]] = defaultdict(list)
        for remote in world.remotes:
            if remote.shared:
                self._remotes[remote.key].append(remote)

    def resolve(self, service: Service, addresses: tuple[Address, ...]) -> Resolved:
        ports = service.ports
        return Resolved(
            service=service,
            addresses=addresses,
            ports=tuple(
                ResolvedPort(port=port, backends=tuple(self._backends(service, port)))
                for port in ports
            ),
        )

    def members(self, service: Service) -> Iterator[tuple[str, Address]]:
        """Host name and address of all that are ready: the records of a headless service."""
        for candidate in self._selected(service):
            if not candidate.stale or service.publish_not_ready:
                yield candidate.entry.name, candidate.entry.prefix.network_address
        for each in self._slices[service.key]:
            for endpoint in each.endpoints:
                if endpoint.ready or service.publish_not_ready:
                    yield from ((endpoint.hostname, address) for address in endpoint.addresses)

    def _selected(self, service: Service) -> Iterator[Candidate]:
        wanted = service.selector.items()
        if wanted:
            for candidate in self._candidates[service.namespace]:
                if all(candidate.labels.get(key) == value for key, value in wanted):
                    yield candidate

    def _backends(self, service: Service, port: ServicePort) -> Iterator[Backend]:
        found: dict[BackendAddress, Backend] = {}
        for backend in (
            *self._of_selector(service, port),
            *self._of_slices(service, port),
            *(self._of_remotes(service, port) if service.sharing.is_global else ()),
        ):
            found.setdefault(backend.at, backend)
        yield from sorted(found.values(), key=lambda backend: backend.at)

    def _of_selector(self, service: Service, port: ServicePort) -> Iterator[Backend]:
        for candidate in self._selected(service):
            entry = candidate.entry
            number = _target(port, entry.named_ports)
            if number is None:
                continue
            at = BackendAddress(entry.prefix.network_address, number, port.protocol)
            backend = Backend(
                at=at,
                port_name=port.name,
                cluster=self._world.cluster,
                node=entry.node,
                name=entry.name,
            )
            reason = STALE if candidate.stale and not service.publish_not_ready else ""
            yield self._judged(backend, reason)

    def _of_slices(self, service: Service, port: ServicePort) -> Iterator[Backend]:
        for each in self._slices[service.key]:
            for slice_port in each.ports:
                if (slice_port.name, slice_port.protocol) != (port.name, port.protocol):
                    continue
                for endpoint in each.endpoints:
                    yield from self._of_endpoint(service, port, slice_port.port, endpoint)

    def _of_endpoint(
        self, service: Service, port: ServicePort, number: int, endpoint: SliceEndpoint
    ) -> Iterator[Backend]:
        for address in endpoint.addresses:
            backend = Backend(
                at=BackendAddress(address, number, port.protocol),
                port_name=port.name,
                cluster=self._world.cluster,
                node=endpoint.node,
                name=endpoint.hostname,
            )
            if endpoint.terminating and endpoint.serving:
                yield attrs.evolve(backend, state=BackendState.TERMINATING, reason="terminating")
            else:
                ready = endpoint.ready or service.publish_not_ready
                yield self._judged(backend, "" if ready else NOT_READY)

    def _of_remotes(self, service: Service, port: ServicePort) -> Iterator[Backend]:
        for remote in self._remotes[service.key]:
            for address, ports in remote.backends.items():
                told = ports.get(port.name)
                if told is None or told[0] is not port.protocol:
                    continue
                _, node = self._world.owners.get(address, ("", ""))
                yield self._judged(
                    Backend(
                        at=BackendAddress(address, told[1], port.protocol),
                        port_name=port.name,
                        cluster=remote.cluster,
                        node=node,
                    ),
                    "",
                )

    def _judged(self, backend: Backend, reason: str) -> Backend:
        if not reason and (backend.cluster, backend.node) in self._world.unreachable:
            reason = UNREACHABLE
        reason = reason or self._world.failing.get(backend.at, "")
        if not reason:
            return backend
        return attrs.evolve(backend, state=BackendState.UNHEALTHY, reason=reason)


def _target(port: ServicePort, named_ports: Mapping[str, str]) -> int | None:
    """The number of the backend's port; None where it has none of that name."""
    if isinstance(port.target, int):
        return port.target
    number, _, protocol = named_ports.get(port.target, "").partition("/")
    if not number or protocol.upper() != port.protocol.name:
        return None
    return int(number)


def exported(
    service: Service, resolved: Resolved, *, cluster: str, cluster_id: int
) -> RemoteService | None:
    """What other clusters are told; None for what they are not. Backends that are out here
    are not told, since `cilium/state/services/v1` has no word for their state."""
    sharing = service.sharing
    if not (sharing.is_global and sharing.shared):
        return None
    frontends: defaultdict[Address, dict[str, tuple[Protocol, int]]] = defaultdict(dict)
    backends: defaultdict[Address, dict[str, tuple[Protocol, int]]] = defaultdict(dict)
    for resolved_port in resolved.ports:
        port = resolved_port.port
        for address in resolved.addresses:
            frontends[address][port.name] = (port.protocol, port.port)
        for backend in resolved_port.backends:
            if backend.cluster == cluster and backend.state is BackendState.ACTIVE:
                backends[backend.at.address][port.name] = (port.protocol, backend.at.port)
    return RemoteService(
        cluster=cluster,
        cluster_id=cluster_id,
        namespace=service.namespace,
        name=service.name,
        frontends=dict(frontends),
        backends=dict(backends),
    )
