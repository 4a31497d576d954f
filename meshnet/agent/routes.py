"""Keeps the host's own routes to other nodes' PodCIDRs.

Owns every route with our protocol number on the vxlan device, and no other. They are for
what the node itself sends; what endpoints send never asks the host's routing table.
"""

from __future__ import annotations

from meshnet.agent.local import LocalNode
from meshnet.agent.mesh_view import MeshView
from meshnet.logic.diff import plan
from meshnet.model.addressing import Prefix
from meshnet.model.kernel import Route
from meshnet.netlink.api import Netlink


class Routes:
    def __init__(
        self, local: LocalNode, view: MeshView, netlink: Netlink, *, vxlan_ifindex: int
    ) -> None:
        self._local = local
        self._view = view
        self._netlink = netlink
        self._ifindex = vxlan_ifindex

    async def reconcile(self) -> None:
        """One full pass."""
        if not self._view.tables.synced:
            return
        found = await self._netlink.list_routes()
        actual = {route.destination: route for route in found if route.ifindex == self._ifindex}
        changes = plan(self._desired(), actual)
        for route in changes.replace.values():
            await self._netlink.replace_route(route)
        for destination in changes.delete:
            await self._netlink.delete_route(actual[destination])

    def _desired(self) -> dict[Prefix, Route]:
        own = self._local.as_node()
        return {
            prefix: Route(
                destination=prefix,
                ifindex=self._ifindex,
                source=self._local.gateway(prefix.version),
                mtu=self._local.endpoint_mtu,
            )
            for node in self._view.nodes()
            if node.key != own.key
            for prefix in node.pod_cidrs
        }
