"""Keeps the dataplane's services equal to the manifests, the endpoints and other clusters.

One full pass over all services; what did not change is not written. Also what `service list`
shows, and what the leader tells the other clusters.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from meshnet.agent.local import LocalNode
from meshnet.agent.mesh_view import MeshView
from meshnet.dataplane.api import Dataplane
from meshnet.logic.diff import plan
from meshnet.logic.recovery import Recovery
from meshnet.logic.service_rows import Here, healths, rows
from meshnet.logic.services import Candidate, Key, Resolved, Resolver, World, exported
from meshnet.logic.shares import Shares, approach, target
from meshnet.manifests.kinds import meaning
from meshnet.model.addressing import Address, host_prefix
from meshnet.model.dataplane import ServiceRow
from meshnet.model.manifest import Manifest
from meshnet.model.service import (
    BackendAddress,
    BackendState,
    Check,
    EndpointSlice,
    Frontend,
    Protocol,
    RemoteService,
    Service,
)
from meshnet.registry import schema
from meshnet.registry.service_codec import encode_service

STEP_S = 0.5
"""How often a slow change (of shares, of a backend that returns) makes a step."""


class Services:
    """Args: `unreachable` answers the nodes (cluster, name) that do not answer this node."""

    def __init__(
        self,
        local: LocalNode,
        view: MeshView,
        dataplane: Dataplane,
        *,
        unreachable: Callable[[], frozenset[tuple[str, str]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view = view
        self._dataplane = dataplane
        self._cluster = local.cluster
        self._here = Here(cluster=local.cluster.name, node=local.name)
        self._unreachable = unreachable
        self._clock = clock
        self.changed: list[Callable[[], None]] = []
        """Called after every pass."""
        self._read: dict[str, tuple[Manifest, Any]] = {}
        self._recovery = Recovery()
        self._hosts: frozenset[Address] = frozenset()
        self._shares: dict[tuple[Key, str], tuple[Shares, float]] = {}
        self._resolved: dict[Key, Resolved] | None = None
        self.resolver = Resolver(World(cluster=self._here.cluster, candidates=(), slices=()))

    async def reconcile(self) -> float | None:
        """One full pass; answers when a slow change goes on, or who vanished is believed gone."""
        if not self._view.tables.synced:
            return None
        again_s = self._view.observe()
        services, slices = self._manifests()
        self.resolver = Resolver(self._world(slices))
        addresses = self._addresses()
        self._resolved = {
            service.key: self.resolver.resolve(service, addresses.get(service.key, ()))
            for service in services
        }
        self._hosts = self._hosts_of_backends()
        now = self._clock()
        returning = self._returning(now)
        desired: dict[Frontend, ServiceRow] = {}
        moving = bool(returning)
        for key in sorted(self.resolved):
            shares, slow = self._divide(self.resolved[key], now)
            moving = moving or slow
            for frontend, row in rows(self.resolved[key], self._here, shares, returning).items():
                desired.setdefault(frontend, row)
        change = plan(desired, self._dataplane.services())
        self._dataplane.update_services(change.replace, change.delete)
        for tell in self.changed:
            tell()
        waits = (again_s, STEP_S if moving else None)
        return min((wait for wait in waits if wait is not None), default=None)

    def _manifests(self) -> tuple[list[Service], list[EndpointSlice]]:
        """What the manifests mean; each is read once."""
        items = self._view.tables.manifests.items
        kept = {key: read for key, read in self._read.items() if items.get(key) is read[0]}
        for key, manifest in items.items():
            if key not in kept and manifest.key.kind in ("Service", "EndpointSlice"):
                kept[key] = (manifest, meaning(manifest))
        self._read = kept
        found = [read for _, read in kept.values()]
        return (
            [each for each in found if isinstance(each, Service)],
            [each for each in found if isinstance(each, EndpointSlice)],
        )

    def _addresses(self) -> dict[Key, tuple[Address, ...]]:
        found: defaultdict[Key, list[Address]] = defaultdict(list)
        for address, key in self._view.tables.service_addresses.items.values():
            found[key].append(address)
        return {key: tuple(sorted(each, key=lambda a: a.version)) for key, each in found.items()}

    def _world(self, slices: list[EndpointSlice]) -> World:
        remotes = list(self._view.tables.cached_services.items.values())
        return World(
            cluster=self._here.cluster,
            candidates=tuple(self._candidates()),
            slices=slices,
            remotes=remotes,
            owners=self._owners(remotes),
            unreachable=self._unreachable(),
            failing={
                at: reason
                for reported in self._view.tables.health.items.values()
                for at, reason in reported.items()
            },
        )

    def _candidates(self) -> Iterator[Candidate]:
        own = self._view.clusters.get(self._here.cluster)
        if own is None:
            return
        labels = {n: found.user_labels() for n, found in self._view.labels().items()}
        for prefix, entry in own.ips.items():
            if prefix.prefixlen == prefix.max_prefixlen and entry.name:
                yield Candidate(
                    entry=entry,
                    labels=labels.get(entry.identity, {}),
                    stale=prefix in own.stale_ips,
                )

    def _owners(self, remotes: list[RemoteService]) -> dict[Address, tuple[str, str]]:
        owners = {}
        for remote in remotes:
            view = self._view.clusters.get(remote.cluster)
            if view is None:
                continue
            hosts = {a: node.name for node in view.nodes.values() for a in node.addresses}
            for address in remote.backends:
                entry = view.ips.get(host_prefix(address))
                if entry is not None and entry.host in hosts:
                    owners[address] = (remote.cluster, hosts[entry.host])
        return owners

    def _hosts_of_backends(self) -> frozenset[Address]:
        nodes = {
            (backend.cluster, backend.node)
            for resolved in self.resolved.values()
            for port in resolved.ports
            for backend in port.backends
        }
        return frozenset(
            address
            for node in self._view.nodes()
            if node.key in nodes
            for address in node.addresses
        )

    def _returning(self, now: float) -> dict[BackendAddress, int]:
        backends = [
            backend
            for resolved in self.resolved.values()
            for port in resolved.ports
            for backend in port.backends
        ]
        out = {backend.at for backend in backends if backend.state is not BackendState.ACTIVE}
        return self._recovery.observe({backend.at for backend in backends} - out, out, now)

    def _divide(self, resolved: Resolved, now: float) -> tuple[dict[str, Shares], bool]:
        """Each port's shares of clusters, and whether they still move."""
        service = resolved.service
        if not service.sharing.is_global:
            return {}, False
        found, moving = {}, False
        for port in resolved.ports:
            key = (service.key, port.port.name)
            before, at = self._shares.get(key, ({}, now))
            health = healths(port)
            wanted = target(service.sharing, self._here.cluster, health, before or None)
            step = service.sharing.max_shift_percent / 100 * max(now - at, STEP_S)
            usable = {name for name, each in health.items() if each.active}
            shares = approach(before, wanted, step, usable)
            self._shares[key] = (shares, now)
            found[port.port.name] = shares
            moving = moving or shares != wanted
        return found, moving

    @property
    def resolved(self) -> Mapping[Key, Resolved]:
        """As of the last pass."""
        return self._resolved or {}

    @property
    def hosts(self) -> frozenset[Address]:
        """Addresses of other nodes that have backends: clients wait for what becomes of them."""
        return self._hosts

    def hits(self) -> dict[BackendAddress, int]:
        return self._dataplane.backend_hits()

    def targets(self) -> dict[BackendAddress, Check]:
        """Backends of this node that are to be checked, and how."""
        return {
            backend.at: resolved.service.check
            for resolved in self.resolved.values()
            if resolved.service.check is not None
            for port in resolved.ports
            for backend in port.backends
            if (backend.cluster, backend.node) == (self._here.cluster, self._here.node)
            and backend.at.protocol is Protocol.TCP
        }

    def exports(self) -> dict[str, bytes] | None:
        """Key -> value of `cilium/state/services/v1/<own>/`, all of them; None before the
        first pass."""
        if self._resolved is None:
            return None
        found = {}
        for (namespace, name), resolved in self._resolved.items():
            told = exported(
                resolved.service,
                resolved,
                cluster=self._here.cluster,
                cluster_id=self._cluster.id,
            )
            if told is not None:
                key = schema.service(self._here.cluster, namespace, name)
                found[key] = encode_service(told, resolved.service.selector)
        return found
