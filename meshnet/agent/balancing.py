"""What a node does for services, built together: backends, their health, their names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from typing import Any

from meshnet.agent.abandoned_sockets import AbandonedSockets
from meshnet.agent.checks import Checks
from meshnet.agent.local import LocalNode
from meshnet.agent.loop import Loop
from meshnet.agent.manifests import Manifests
from meshnet.agent.mesh_view import MeshView
from meshnet.agent.resolver import Resolver
from meshnet.agent.service_admission import ServiceAdmission, SliceAdmission
from meshnet.agent.service_directory import ServiceDirectory
from meshnet.agent.services import Services
from meshnet.dataplane.api import Dataplane
from meshnet.errors import RegistryError
from meshnet.kvstore.api import KV
from meshnet.logic.abandoned import living
from meshnet.model.addressing import Address
from meshnet.netlink.sockets import destroy_datagram
from meshnet.registry import schema
from meshnet.registry.service_addresses import ServiceAddresses
from meshnet.registry.service_codec import encode_health
from meshnet.registry.session import Session


class Balancing:
    """Args:
    silent: answers the addresses of nodes that do not answer any more.
    namespaces: answers the paths of the endpoints' network namespaces.
    """

    def __init__(
        self,
        local: LocalNode,
        kv: KV,
        session: Session,
        view: MeshView,
        dataplane: Dataplane,
        *,
        silent: Callable[[], Collection[Address]],
        namespaces: Callable[[], Iterable[str]],
    ) -> None:
        self._session = session
        self._health_key = schema.health(local.name)
        self._view = view
        self._silent = silent
        self.services = Services(local, view, dataplane, unreachable=self._unreachable)
        self.loop = Loop("services", self.services.reconcile)
        self.checks = Checks(self.services.targets, self._health_changed)
        directory = ServiceDirectory(view, self.services)
        self.services.changed.append(directory.changed)
        self.abandoned = AbandonedSockets(dataplane, namespaces, destroy_datagram)
        self.services.changed.append(self._look_for_abandoned)
        self.resolver = Resolver(local.gateways, directory.lookup)
        pools = local.cluster.service_cidrs
        taken = {
            **dict.fromkeys(pools, "a service's own"),
            **dict.fromkeys(local.cluster.pod_cidrs, "an endpoint's"),
        }
        self.manifests = Manifests(
            kv,
            {
                "Service": ServiceAdmission(ServiceAddresses(kv, pools), taken),
                "EndpointSlice": SliceAdmission(pools),
            },
        )

    def work(self) -> Iterator[Coroutine[Any, Any, None]]:
        """Beside the loop, which runs with the others."""
        yield self.resolver.run()
        yield self.checks.run()
        yield self.abandoned.run()

    def _look_for_abandoned(self) -> None:
        self.abandoned.observe(living(self.services.resolved.values()))

    def _unreachable(self) -> frozenset[tuple[str, str]]:
        """Nodes that we probe and that do not answer any more."""
        silent = set(self._silent())
        return frozenset(
            node.key for node in self._view.nodes() if silent.intersection(node.addresses)
        )

    async def _health_changed(self) -> None:
        """At once: clients elsewhere go on trying until they are told. Where etcd does not
        answer, the session tells when it does."""
        with contextlib.suppress(RegistryError):
            await self._session.put(self._health_key, encode_health(self.checks.failing))
