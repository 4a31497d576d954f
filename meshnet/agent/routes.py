"""Keeps the host's own routes to other nodes' PodCIDRs.

Owns every route with our protocol number on the vxlan device or by a next hop, and no other.
They are for what the node itself sends, and for an operator to see; what endpoints send never
asks the host's routing table.
"""

from __future__ import annotations

import time

from meshnet.agent.local import LocalNode
from meshnet.agent.mesh_view import MeshView
from meshnet.agent.paths import Paths
from meshnet.logic.diff import plan
from meshnet.logic.ipcache import outer_address
from meshnet.model.addressing import Address, Prefix, usable_mtu
from meshnet.model.dataplane import Mode
from meshnet.model.kernel import Route
from meshnet.netlink.api import Netlink

LISTED_S = 30.0
"""How long the kernel is believed to have what was written, without news of it. A listing has
the routes of all endpoints here, too."""


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
        self._written: dict[Prefix, Route] | None = None
        self._listed_at = 0.0

    async def reconcile(self) -> None:
        """One full pass; most news of the mesh change no route, and the kernel is not asked
        about those for LISTED_S."""
        if not self._view.tables.synced:
            return
        desired = self._desired()
        if desired == self._written and time.monotonic() - self._listed_at < LISTED_S:
            return
        self._written = None
        found = await self._netlink.list_routes()
        actual = {route.destination: route for route in found if self._is_ours(route)}
        changes = plan(desired, actual)
        for route in changes.replace.values():
            await self._netlink.replace_route(route)
        for destination in changes.delete:
            await self._netlink.delete_route(actual[destination])
        self._written, self._listed_at = desired, time.monotonic()

    def doubt(self) -> None:
        """Routes of this host have changed, whosever they are."""
        self._written = None

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
