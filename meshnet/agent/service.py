"""The agent: every object built by hand, in order, and run in one TaskGroup."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Collection, Coroutine, Iterable, Iterator
from typing import Any

import structlog

from meshnet.agent import lean, start
from meshnet.agent.api.routes import routes
from meshnet.agent.api.server import ApiServer
from meshnet.agent.authorities import Authorities, Surroundings
from meshnet.agent.balancing import Balancing
from meshnet.agent.certificates import CertificateKeeper
from meshnet.agent.cluster_settings import ClusterSettings
from meshnet.agent.conntrack import SWEEP_S, ConntrackSweeper
from meshnet.agent.context import Context
from meshnet.agent.departure import Departure
from meshnet.agent.effect import Effect
from meshnet.agent.endpoint_store import EndpointStore
from meshnet.agent.endpoints import Endpoints
from meshnet.agent.enforcement import Enforcement
from meshnet.agent.etcd_health import EtcdHealth, supervise
from meshnet.agent.events import DropEvents
from meshnet.agent.expulsion import Expulsion
from meshnet.agent.forwarding import Forwarding
from meshnet.agent.ipam import Ipam
from meshnet.agent.joining import Joining
from meshnet.agent.loop import Loop
from meshnet.agent.manifests import shared
from meshnet.agent.mesh_view import MeshView, Tables
from meshnet.agent.namespaces import Namespaces
from meshnet.agent.ownership import Ownership
from meshnet.agent.paths import Paths as PeerPaths
from meshnet.agent.probe import Prober
from meshnet.agent.publication import Publication
from meshnet.agent.routes import Routes
from meshnet.agent.start import Foundation
from meshnet.agent.troubleshooting import Troubleshooting
from meshnet.agent.trust import Trust
from meshnet.agent.underlay import UnderlayWatch
from meshnet.agent.watchers import Watchers
from meshnet.config import Paths, Settings
from meshnet.enrolment.roster import gateways_of
from meshnet.kvstore.etcd import EtcdKV
from meshnet.logic.admission import MAX_BYTES
from meshnet.mesh.authorities import RemoteAuthorities
from meshnet.mesh.export import Export
from meshnet.mesh.leader import MeshLeader
from meshnet.mesh.leadership import Leadership
from meshnet.mesh.peering import open_etcd
from meshnet.model.node import Node
from meshnet.model.remote import Remote, RemoteKind, RemoteState
from meshnet.pki.store import PkiStore
from meshnet.registry import codec, schema
from meshnet.registry.session import Session

Work = Coroutine[Any, Any, None]


async def serve(paths: Paths, settings: Settings) -> None:
    """Run this node's agent until SIGTERM, SIGINT or `cluster leave`.

    Stopping leaves packets flowing and the node's keys in etcd for one lease, so that the
    next agent takes over without anybody noticing. Where the underlay becomes another one,
    everything is built anew upon it, just as the next agent would.

    Raises:
        MeshnetError: what the node cannot start without is missing. Once it has started, the
            underlay may come and go.
    """
    signalled = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    foundation: Foundation | None = await start.lay_foundation(paths, settings)
    while foundation is not None and await _serve_upon(foundation, paths, settings, signalled):
        structlog.get_logger().info("the underlay changed: beginning anew", node=settings.node)
        foundation = await start.lay_again(paths, settings, signalled)


async def _serve_upon(
    foundation: Foundation, paths: Paths, settings: Settings, signalled: asyncio.Event
) -> bool:
    """Answers whether to begin anew."""
    stopping = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            agent = _Agent(paths, settings, foundation, tasks, stopping)
            await agent.endpoints.restore()
            everything = [tasks.create_task(work) for work in agent.work()]
            await agent.introduce()
            structlog.get_logger().info("agent started", node=foundation.local.name)
            ends = [tasks.create_task(event.wait()) for event in (stopping, signalled)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in (*everything, *agent.owned, *ends):
                task.cancel()
    finally:
        foundation.dataplane.close()
        await foundation.kv.close()
    structlog.get_logger().info("agent stopped", node=foundation.local.name)
    return agent.underlay.moved and not signalled.is_set()


class _Agent:
    """The parts of a running agent, each built from those before it."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        foundation: Foundation,
        tasks: asyncio.TaskGroup,
        stopping: asyncio.Event,
    ) -> None:
        self._foundation = foundation
        self._paths = paths
        self._tasks = tasks
        self._stop = stopping.set
        self.owned: set[asyncio.Task[None]] = set()
        """What was spawned on the way and has not ended."""
        self._build_view()
        self._build_trust(settings)
        self._build_endpoints()
        self._build_forwarding(settings)
        self._build_api(settings)

    def _build_view(self) -> None:
        """What is known of the mesh, and how this node takes part in it."""
        local, kv = self._foundation.local, self._foundation.kv
        dataplane = self._foundation.dataplane
        self.session = Session(kv)
        self.ownership = Ownership(kv, local.pod_cidrs)
        self.view = MeshView(local, Tables.of(local.cluster))
        self.view.expelled = self._expelled
        self.namespaces = Namespaces(self.view.tables.manifests)
        self.events = DropEvents(dataplane)
        self.etcd_health = EtcdHealth(kv)
        self.balancing = Balancing(
            local,
            kv,
            self.session,
            self.view,
            dataplane,
            silent=lambda: self.prober.silent(),
            namespaces=lambda: [endpoint.netns for endpoint in self.endpoints.list()],
        )
        self.prober = Prober(
            self.view.peer_addresses,
            urgent=lambda: self.balancing.services.hosts,
            changed=self.balancing.loop.trigger,
        )
        self.view.answering = self.prober.answering

    def _build_trust(self, settings: Settings) -> None:
        """Certificates, remotes, and the leader's work."""
        foundation = self._foundation
        local, kv = foundation.local, foundation.kv
        pki = self._pki = PkiStore(self._paths.pki)
        self.settings = ClusterSettings(kv, lambda: self.view.cluster)
        self.trust = Trust(settings, local, kv, pki, self.settings.lifetime)
        self.keeper = CertificateKeeper(pki, settings.cluster, self.settings.lifetime)
        self.settings.changed = self.keeper.wake
        self.leadership = Leadership(kv, local.name)
        own, services = local.cluster.name, self.balancing.services
        of_services = Export(kv, schema.services(own), services.exports)
        services.changed.append(of_services.trigger)
        self.of_manifests = Export(
            kv, schema.shared_manifests(own), lambda: shared(own, self.view.tables.manifests)
        )
        exports = (of_services, self.of_manifests)
        self.leader = MeshLeader(kv, local.cluster, self._open_remote, exports=exports)
        self.authorities = Authorities(
            local,
            kv,
            self.session,
            pki,
            foundation.etcd,
            self._surroundings(),
            signer=self.trust.own_signer,
            lifetime=self.settings.lifetime,
            renew=self.keeper.wake,
        )
        self.remote_authorities = RemoteAuthorities(
            kv, local.cluster.name, lambda: self.leadership.leading
        )

    def _build_endpoints(self) -> None:
        """The endpoints of this node, and what they may do."""
        foundation = self._foundation
        local, kv, dataplane = foundation.local, foundation.kv, foundation.dataplane
        self.effect = Effect(local, kv, self.session, self.view)
        self.enforcement = Enforcement(local, self.view, dataplane)
        self.endpoints = Endpoints(
            local=local,
            netlink=foundation.netlink,
            dataplane=dataplane,
            store=EndpointStore(self._paths.run / "endpoints"),
            publication=Publication(local, kv, self.session),
            enforcement=self.enforcement,
            ownership=self.ownership,
            spawn=self._spawn,
            namespace_labels=self.namespaces.labels_of,
        )
        self.on_endpoints = Loop("endpoints", self._reconcile_endpoints)
        self.effect.settled = lambda: self.endpoints.settled

    def _build_forwarding(self, settings: Settings) -> None:
        """The ways to other nodes, and every loop."""
        foundation = self._foundation
        local, netlink, dataplane = foundation.local, foundation.netlink, foundation.dataplane
        self.paths = PeerPaths(local, self.view, netlink, changed=self._paths_changed)
        self.endpoints.route_mtu = lambda: self.paths.endpoint_mtu
        routes_of_host = Routes(
            local, self.view, self.paths, netlink, vxlan_ifindex=foundation.vxlan_ifindex
        )
        forwarding = Forwarding(
            local, self.view, self.paths, dataplane, self.enforcement, self.effect
        )
        self.on_forwarding = Loop("forwarding", forwarding.reconcile)
        maps = [self.on_forwarding, Loop("routes", routes_of_host.reconcile), self.balancing.loop]
        paths_loop = Loop("paths", self.paths.reconcile)
        self.paths.trigger = paths_loop.trigger
        self.on_paths = [*maps, self.on_endpoints]
        self.on_mesh = [*maps, paths_loop]
        self.loops = [
            *self.on_paths,
            paths_loop,
            Loop("conntrack", ConntrackSweeper(dataplane).reconcile, resync_s=SWEEP_S),
        ]
        self.underlay = UnderlayWatch(
            local, netlink, settings, routes_changed=self._routes_changed, stop=self._stop
        )
        self._routes = routes_of_host

    def _build_api(self, settings: Settings) -> None:
        """What the command line asks and orders."""
        foundation = self._foundation
        local, kv = foundation.local, foundation.kv
        departure = Departure(
            foundation,
            self.view,
            self.endpoints,
            self._end_session,
            Expulsion(kv, local.cluster.name, self.authorities),
            stop=self._stop,
        )
        joining = Joining(local, kv, self._pki, self.trust)
        troubleshooting = Troubleshooting(self._pki, kv, self.view, self._where)
        self.api = ApiServer(
            self._paths.socket,
            routes(self._context(settings), joining, departure, troubleshooting),
        )

    def work(self) -> Iterator[Work]:
        """Everything that runs for as long as the agent does."""
        foundation = self._foundation
        watchers = Watchers(
            local=foundation.local,
            kv=foundation.kv,
            session=self.session,
            view=self.view,
            changed=self._mesh_changed,
            remotes_changed=self.trust.remotes_changed,
            manifests_changed=self._manifests_changed,
            settings_changed=self.settings.refresh,
        )
        yield watchers.run()
        for loop in self.loops:
            yield loop.run()
        yield self.ownership.run()
        yield self.prober.run()
        yield from self.balancing.work()
        yield self.paths.prober.run()
        yield self.paths.path_prober.run()
        yield self.underlay.run()
        yield self.events.run()
        yield self.etcd_health.run()
        yield self.trust.run()
        yield self.keeper.run()
        yield self.authorities.run()
        yield self.remote_authorities.run()
        yield self.leadership.run(self.leader.lead)
        if foundation.etcd is not None:
            yield supervise(foundation.etcd)
        yield self.api.run()
        yield lean.run()

    async def introduce(self) -> None:
        """Tell the mesh of this node and its endpoints, under one lease. Where etcd does not
        answer now, the session tells when it does."""
        local = self._foundation.local
        key = schema.node(local.cluster.name, local.name)
        self.session.want(key, codec.encode_node(local.as_node()))
        self.endpoints.want_published()
        self._keeping = self._spawn(self.session.run())

    def _open_remote(self, remote: Remote) -> EtcdKV:
        """A remote's exported state, through whichever of its gateways answers."""
        if remote.access is not None:  # a Cilium cluster
            return open_etcd(remote.name, remote.gateways, remote.access)
        tls = start.mirror_tls(self._pki, remote)
        server = f"gateway of cluster {remote.name}"
        return EtcdKV(self._where(remote), tls, server=server, largest_list=2 * MAX_BYTES)

    def _where(self, remote: Remote) -> tuple[str, ...]:
        if remote.access is not None:
            return remote.gateways
        return gateways(remote, self.view.nodes_of(remote.name))

    def _expelled(self, cluster: str) -> Collection[str]:
        if cluster == self.view.own:
            return self.authorities.expelled
        remote = self.view.tables.remotes.items.get(schema.remote(cluster))
        return remote.expelled if remote is not None else ()

    def _surroundings(self) -> Surroundings:
        tables = self.view.tables
        return Surroundings(
            live=lambda: frozenset(node.name for node in tables.nodes.items.values()),
            remotes=lambda: frozenset(
                remote.name
                for remote in tables.remotes.items.values()
                if remote.kind is RemoteKind.MESHNET and remote.state is RemoteState.COMMITTED
            ),
        )

    def _mesh_changed(self) -> None:
        for loop in self.on_mesh:
            loop.trigger()

    def _paths_changed(self) -> None:
        for loop in self.on_paths:
            loop.trigger()

    def _routes_changed(self) -> None:
        self._routes.doubt()
        self.paths.routes_changed()

    async def _reconcile_endpoints(self) -> None:
        """Endpoints that were given another identity may be what somebody waits for."""
        try:
            await self.endpoints.reconcile()
        finally:
            if self.effect.overdue:
                self.on_forwarding.trigger()  # which tells

    def _manifests_changed(self) -> None:
        if self.namespaces.refresh():
            self.on_endpoints.trigger()
        self.of_manifests.trigger()
        self._mesh_changed()

    def _spawn(self, work: Work) -> asyncio.Task[None]:
        task = self._tasks.create_task(work)
        self.owned.add(task)
        task.add_done_callback(self.owned.discard)
        return task

    async def _end_session(self) -> None:
        """Stop the keep-alive, then let the lease go: every key of ours is gone."""
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        await self.session.revoke()

    def _context(self, settings: Settings) -> Context:
        return Context(
            settings=settings,
            local=self._foundation.local,
            dataplane=self._foundation.dataplane,
            view=self.view,
            endpoints=self.endpoints,
            prober=self.prober,
            paths=self.paths,
            underlay=self.underlay,
            events=self.events,
            etcd_health=self.etcd_health,
            loops=self.loops,
            leadership=self.leadership,
            keeper=self.keeper,
            authorities=self.authorities,
            cluster_settings=self.settings,
            pki=self._pki,
            ownership=self.ownership,
            manifests=self.balancing.manifests,
            ipam=Ipam(self._foundation.kv, self._foundation.local.cluster),
            services=self.balancing.services,
            resolver=self.balancing.resolver,
            effect=self.effect,
            enforcement=self.enforcement,
        )


def gateways(remote: Remote, nodes: Iterable[Node]) -> tuple[str, ...]:
    """Where a remote can be read: at the nodes it has now, then at those it had when it
    joined. Nodes come and go; a join is for good."""
    return tuple(dict.fromkeys((*gateways_of(tuple(nodes)), *remote.gateways)))
