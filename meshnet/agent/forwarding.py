"""Keeps the dataplane's `nodes` and `ipcache` maps equal to the mesh view.

Owns both maps. Nothing is removed before every watcher has its first full listing, so a
restarted agent never cuts what its predecessor set up.
"""

from __future__ import annotations

import structlog

from meshnet.agent.effect import Effect
from meshnet.agent.enforcement import Enforcement
from meshnet.agent.local import LocalNode
from meshnet.agent.mesh_view import MeshView
from meshnet.agent.paths import Paths
from meshnet.dataplane.api import Dataplane
from meshnet.logic.diff import plan
from meshnet.logic.ipcache import ipcache_rows, node_rows, prefix_rows, underlay_rows
from meshnet.model.addressing import Address, Prefix
from meshnet.model.dataplane import IpcacheRow, NodeRow


class Forwarding:
    def __init__(
        self,
        local: LocalNode,
        view: MeshView,
        paths: Paths,
        dataplane: Dataplane,
        enforcement: Enforcement,
        effect: Effect,
    ) -> None:
        self._local = local
        self._view = view
        self._paths = paths
        self._dataplane = dataplane
        self._enforcement = enforcement
        self._effect = effect
        self._log = structlog.get_logger(reconciler="forwarding")

    async def reconcile(self) -> float | None:
        """One full pass; answers when a stale row falls due."""
        if not self._view.tables.synced:
            return None
        reached = self._effect.now()
        again_s = self._view.observe()
        # An identity's rules are in place before any address is said to have it.
        self._enforcement.reconcile()
        nodes, ipcache = self._desired()
        node_plan = plan(nodes, self._dataplane.nodes())
        ip_plan = plan(ipcache, self._dataplane.ipcache())
        # A row may point only to a node that is there, so: nodes, addresses, then less nodes.
        self._dataplane.update_nodes(node_plan.replace, ())
        self._dataplane.update_ipcache(ip_plan.replace, ip_plan.delete)
        self._dataplane.update_nodes({}, node_plan.delete)
        self._enforcement.sweep()
        await self._effect.tell(reached)
        if node_plan or ip_plan:
            self._log.info(
                "maps changed",
                nodes=len(node_plan.replace),
                nodes_deleted=len(node_plan.delete),
                addresses=len(ip_plan.replace),
                addresses_deleted=len(ip_plan.delete),
            )
        return again_s

    def _desired(self) -> tuple[dict[Address, NodeRow], dict[Prefix, IpcacheRow]]:
        own = self._local.as_node()
        nodes = {node.key: node for node in self._view.nodes()}
        nodes[own.key] = own
        everyone = list(nodes.values())
        rows = prefix_rows(self._enforcement.prefixes)
        rows |= underlay_rows(own, everyone)
        for view in self._view.clusters.values():
            rows |= ipcache_rows(own, everyone, view.ips.values())
        node_map = node_rows(
            own,
            everyone,
            path_mtu=self._local.underlay.mtu,
            path_mtus=self._paths.path_prober.path_mtus,
            path_to=self._paths.path,
        )
        return node_map, rows
