"""What the resolver looks names up in: services, their members, and endpoints of the mesh.

Built when a name is asked for first after a change, since most changes are asked about by
nobody.
"""

from __future__ import annotations

from collections import defaultdict

from meshnet.agent.mesh_view import MeshView
from meshnet.agent.services import Services
from meshnet.logic.service_names import Answer, Names
from meshnet.model.addressing import Address


class ServiceDirectory:
    def __init__(self, view: MeshView, services: Services) -> None:
        self._view = view
        self._services = services
        self._names: Names | None = None

    def changed(self) -> None:
        """Services or endpoints did."""
        self._names = None

    def lookup(self, name: str, kind: str) -> Answer | None:
        if self._names is None:
            self._names = self._build()
        return self._names.answer(name, kind)

    def _build(self) -> Names:
        endpoints: defaultdict[tuple[str, str, str], list[Address]] = defaultdict(list)
        for cluster, effective in self._view.clusters.items():
            for prefix, entry in effective.ips.items():
                if entry.name and prefix.prefixlen == prefix.max_prefixlen:
                    key = (cluster, entry.namespace, entry.name)
                    endpoints[key].append(prefix.network_address)
        resolved = self._services.resolved
        return Names(
            services=resolved,
            members={
                key: tuple(self._services.resolver.members(each.service))
                for key, each in resolved.items()
                if each.service.headless
            },
            endpoints={key: tuple(addresses) for key, addresses in endpoints.items()},
            cluster=self._view.own,
        )
