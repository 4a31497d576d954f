"""Keeps the way to every peer decided: mode by family, next hop, interface.

Asks the routing table who is next, tries what might be native (`native_probe`), and leaves
the decision to logic/routing.py. Owns `paths`; the `forwarding` and `routes` reconcilers write
it down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import structlog

from meshnet.agent.local import LocalNode
from meshnet.agent.mesh_view import MeshView
from meshnet.agent.native_probe import NativeProber, Target
from meshnet.agent.path_probe import PathPeer, PathProber
from meshnet.logic.ipcache import outer_address
from meshnet.logic.path_mtu import overhead
from meshnet.logic.routing import FAMILIES, PeerPath, by_tunnel, candidates, decide
from meshnet.model.addressing import Address, usable_mtu
from meshnet.model.kernel import Hop
from meshnet.model.node import Node
from meshnet.netlink.api import Netlink

FRESH_S = 55.0
"""How long an answer of the routing table is believed without any news of a change."""


class Paths:
    """`changed` is called after `paths` did."""

    def __init__(
        self, local: LocalNode, view: MeshView, netlink: Netlink, *, changed: Callable[[], None]
    ) -> None:
        self._local = local
        self._view = view
        self._netlink = netlink
        self._changed = changed
        self._hops: dict[Address, Hop] = {}
        self._asked: set[Address] = set()
        self._asked_at = time.monotonic()
        self._log = structlog.get_logger(reconciler="paths")
        self.trigger: Callable[[], None] = lambda: None
        """Set by whoever runs `reconcile`."""
        self.prober = NativeProber(netlink, lambda: self.trigger())
        self.path_prober = PathProber(self._path_peers, ceiling=local.underlay.mtu, changed=changed)
        self.paths: dict[Address, PeerPath] = {}
        """By outer address, as rows of `nodes` are."""

    def path(self, outer: Address) -> PeerPath:
        """Before anything is known of a peer: by tunnel."""
        return self.paths.get(outer) or by_tunnel(self._local.cluster.tunnel)

    def path_mtu(self, outer: Address) -> int:
        """Bytes of an outer packet. Before anything is known: what the interface takes."""
        return self.path_prober.path_mtus.get(outer, self._local.underlay.mtu)

    def fits(self, outer: Address, family: int) -> int:
        """The largest packet of an endpoint or the node that reaches a peer in one piece."""
        return usable_mtu(self.room(outer, family), family)

    def room(self, outer: Address, family: int) -> int:
        """What the outer headers leave; for IPv6 it may be less than IPv6 can do with."""
        return self.path_mtu(outer) - overhead(outer.version, self.path(outer).mode(family))

    @property
    def endpoint_mtu(self) -> int:
        """Of endpoints' default routes: what the widest way takes, at most what any tunnel
        would. Who sends by a narrower one is told so, peer by peer."""
        widest = max((self.fits(outer, 4) for outer in self.paths), default=1 << 16)
        return min(widest, self._local.endpoint_mtu)

    def routes_changed(self) -> None:
        """Ask for every hop again."""
        self._asked.clear()
        self.trigger()

    async def reconcile(self) -> None:
        """One full pass."""
        if not self._view.tables.synced:
            return
        peers = dict(self._peers())
        await self._ask(peers)
        targets = {
            outer: dict(self._targets(node, self._hops_of(node))) for outer, node in peers.items()
        }
        self.prober.aim([target for tries in targets.values() for target in tries.values()])
        confirmed = self.prober.confirmed
        decided = {
            outer: decide(
                self._local.cluster.routing,
                self._local.cluster.tunnel,
                self._hops_of(node),
                {family for family, target in targets[outer].items() if target in confirmed},
                outer=outer.version,
            )
            for outer, node in peers.items()
        }
        for outer, path in decided.items():
            if self.path(outer).modes != path.modes:
                self._log.info(
                    "mode changed", node=peers[outer].name, cluster=peers[outer].cluster,
                    ipv4=path.modes.ipv4, ipv6=path.modes.ipv6,
                )  # fmt: skip
        if decided != self.paths:
            self.paths = decided
            self.path_prober.peers_changed()
            self._changed()

    def _peers(self) -> Iterator[tuple[Address, Node]]:
        own = self._local.as_node()
        for node in self._view.nodes():
            outer = outer_address(own, node)
            if node.key != own.key and outer is not None:
                yield outer, node

    def _path_peers(self) -> Iterator[PathPeer]:
        """Whose path is measured: who has an own address of a family that we have, too."""
        for outer, node in self._peers():
            own = self._local.underlay_address(outer.version)
            ends = ((self._local.gateway(gateway.version), gateway) for gateway in node.gateways)
            inner = next(((ours, theirs) for ours, theirs in ends if ours is not None), None)
            if own is not None and inner is not None:
                yield PathPeer(
                    address=outer, own_address=own, inner=inner, mode=self.path(outer).summary
                )

    async def _ask(self, peers: dict[Address, Node]) -> None:
        """The routing table, for whom it was not asked lately."""
        now = time.monotonic()
        if now - self._asked_at > FRESH_S:
            self._asked.clear()
            self._asked_at = now
        wanted = {address for node in peers.values() for address in self._reachable(node)}
        unknown = wanted - self._asked
        found = await self._netlink.hops_to(unknown)
        kept = {a: hop for a, hop in self._hops.items() if a in wanted - unknown}
        self._hops = kept | found
        self._asked = (self._asked & wanted) | unknown

    def _reachable(self, node: Node) -> list[Address]:
        """Its address of each family that we have too."""
        addresses = (node.outer_address(f) for f in FAMILIES if self._local.underlay_address(f))
        return [address for address in addresses if address is not None]

    def _hops_of(self, node: Node) -> dict[int, Hop]:
        hops = ((a.version, self._hops.get(a)) for a in self._reachable(node))
        return {version: hop for version, hop in hops if hop is not None}

    def _targets(self, node: Node, hops: dict[int, Hop]) -> Iterator[tuple[int, Target]]:
        """What to probe, by the family of the packets that would travel so."""
        for family, hop in candidates(self._local.cluster.routing, hops).items():
            source = self._local.gateway(family)
            theirs = next((a for a in node.gateways if a.version == family), None)
            if source is not None and theirs is not None:
                yield family, Target(source=source, destination=theirs, hop=hop.address)
