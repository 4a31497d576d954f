"""Leaving: this node takes itself out of the cluster, or a dead one is taken out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from meshnet.agent.endpoints import Endpoints
from meshnet.agent.expulsion import Expulsion
from meshnet.agent.mesh_view import MeshView
from meshnet.agent.start import Foundation
from meshnet.enrolment.nodes import forget_issued
from meshnet.errors import NotFound, Refused, RegistryError
from meshnet.kvstore.patience import ride
from meshnet.logic.stale import SETTLE_S
from meshnet.model.kernel import GENEVE_IFNAME, VXLAN_IFNAME
from meshnet.registry import schema
from meshnet.registry.allocator import pod_cidrs_of, release_pod_cidrs


class Departure:
    """Args: `end_session` stops the keep-alive and revokes the lease; `stop` ends the agent."""

    def __init__(
        self,
        foundation: Foundation,
        view: MeshView,
        endpoints: Endpoints,
        end_session: Callable[[], Awaitable[None]],
        expulsion: Expulsion,
        *,
        stop: Callable[[], None],
    ) -> None:
        self._local = foundation.local
        self._kv = foundation.kv
        self._dataplane = foundation.dataplane
        self._netlink = foundation.netlink
        self._view = view
        self._endpoints = endpoints
        self._end_session = end_session
        self._expulsion = expulsion
        self._stop = stop
        self._log = structlog.get_logger()

    async def leave(self, *, force: bool) -> None:
        """Drain this node: nothing of it is left in etcd or in the kernel.

        Args:
            force: go on when etcd does not answer; its keys then go with the lease, and
                its PodCIDRs wait for `meshnet node delete` on another node.
        """
        await self._endpoints.delete_all()
        try:
            # The others believe a deletion while the node that announced it is still there.
            await asyncio.sleep(2 * SETTLE_S)
            await self._end_session()
            await release_pod_cidrs(self._kv, self._local.name)
            await forget_issued(self._kv, self._local.name)
        except RegistryError as error:
            if not force:
                raise Refused(
                    f"etcd does not answer ({error}), so this node's keys would stay: bring etcd "
                    "back, or leave with --force"
                ) from error
            self._log.warning("left without etcd", error=str(error))
        self._dataplane.unload()
        for ifname in (VXLAN_IFNAME, GENEVE_IFNAME):
            await self._netlink.delete_link(ifname)
        for route in await self._netlink.list_routes():
            await self._netlink.delete_route(route)  # native ones lie on the underlay
        self._log.info("left the cluster", node=self._local.name)
        self._stop()

    async def delete_node(self, name: str, *, revoke: bool = False) -> None:
        """Give back what a node that is gone still holds. Refuses one that is alive.

        Args:
            revoke: throw it out, also while it is alive: for one that was stolen rather than
                retired.
        """
        if name == self._local.name:
            raise Refused(f"{name} is this node: run `meshnet cluster leave`")
        if revoke:
            await self._expulsion.expel(name)
            return
        key = schema.node(self._local.cluster.name, name)
        if key in self._view.tables.nodes.items:
            raise Refused(
                f"node {name} is alive (its lease is kept): run `meshnet cluster leave` there"
            )
        if not await pod_cidrs_of(self._kv, name):
            raise NotFound(f"node {name} holds nothing in cluster {self._local.cluster.name}")
        await ride(partial(release_pod_cidrs, self._kv, name))
        self._log.info("node deleted", node=name)
