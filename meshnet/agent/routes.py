"""Keeps the host's own routes to other nodes' PodCIDRs.

Owns every route with our protocol number on the vxlan device or by a next hop, and no other.
They are for what the node itself sends, and for an operator to see; what endpoints send never
asks the host's routing table.
"""

from __future__ import annotations

from meshnet.agent.local import LocalNode
from meshnet.agent.mesh_view import MeshView
from meshnet.agent.paths import Paths
from meshnet.logic.diff import plan
from meshnet.logic.ipcache import outer_address
from meshnet.model.addressing import Address, Prefix, usable_mtu
from meshnet.model.dataplane import Mode
from meshnet.model.kernel import Route
from meshnet.netlink.api import Netlink


class Routes:
    def __init__(
        self,
        local: LocalNode,
        view: MeshView,
        paths: Paths,
        netlink: Netlink,
        *,
        vxlan_ifindex: int,
    ) -> None:
        self._local = local
        self._view = view
        self._paths = paths
        self._netlink = netlink
        self._ifindex = vxlan_ifindex

    async def reconcile(self) -> None:
        """One full pass."""
        if not self._view.tables.synced:
            return
        found = await self._netlink.list_routes()
        actual = {route.destination: route for route in found if self._is_ours(route)}
        changes = plan(self._desired(), actual)
        for route in changes.replace.values():
            await self._netlink.replace_route(route)
        for destination in changes.delete:
            await self._netlink.delete_route(actual[destination])

    def _is_ours(self, route: Route) -> bool:
        """The others are endpoints', on their veths."""
        return route.ifindex == self._ifindex or route.via is not None

    def _desired(self) -> dict[Prefix, Route]:
        own = self._local.as_node()
        return {
            prefix: self._route(prefix, outer_address(own, node))
            for node in self._view.nodes()
            if node.key != own.key
            for prefix in node.pod_cidrs
        }

    def _route(self, prefix: Prefix, outer: Address | None) -> Route:
        """By the vxlan device, or by the next hop where endpoints' packets travel natively.
        Its MTU is the path's, so that the stack cuts what of endpoints may be cut."""
        source = self._local.gateway(prefix.version)
        if outer is None:
            return Route(
                destination=prefix, ifindex=self._ifindex, source=source,
                mtu=usable_mtu(self._local.endpoint_mtu, prefix.version),
            )  # fmt: skip
        path, mtu = self._paths.path(outer), self._paths.fits(outer, prefix.version)
        if path.mode(prefix.version) is not Mode.NATIVE:
            return Route(destination=prefix, ifindex=self._ifindex, source=source, mtu=mtu)
        via = path.next_hop(prefix.version)
        narrow = mtu if mtu < self._local.underlay.mtu else None
        return Route(destination=prefix, ifindex=path.ifindex, source=source, via=via, mtu=narrow)
