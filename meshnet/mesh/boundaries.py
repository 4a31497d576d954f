"""What each remote is held to: our configuration, our nodes, and what the others have.

Prefixes are pinned; addresses of nodes belong to whom they were first believed of, so that
two remotes that claim one address are told apart the same way every time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from meshnet.logic.admission import Boundary
from meshnet.model.addressing import Address
from meshnet.model.cluster import Cluster
from meshnet.model.node import Node
from meshnet.model.remote import Remote


class Boundaries:
    """Asked anew by each mirror when `version` has grown."""

    def __init__(self, cluster: Cluster) -> None:
        self._ours = (*cluster.pod_cidrs, *cluster.service_cidrs)
        self._remotes: dict[str, Remote] = {}
        self._own_nodes: dict[Address, str] = {}
        self._hosts: dict[str, frozenset[Address]] = {}
        self._taken: dict[Address, str] = {}
        self.version = 0

    def own_nodes(self, nodes: Iterable[Node]) -> None:
        """The nodes of our cluster, all of them."""
        self._own_nodes = {
            address: f"node {node.name} of this cluster"
            for node in nodes
            for address in (*node.addresses, *node.gateways)
        }
        self._changed()

    def remotes(self, remotes: Mapping[str, Remote]) -> None:
        """The remotes that were joined, all of them, by name."""
        self._remotes = dict(remotes)
        self._hosts = {name: hosts for name, hosts in self._hosts.items() if name in remotes}
        self._changed()

    def believed(self, remote: str, hosts: Collection[Address]) -> None:
        """The underlay addresses of a remote's believed nodes, all of them."""
        if self._hosts.get(remote, frozenset()) != hosts:
            self._hosts[remote] = frozenset(hosts)
            self._changed()

    def of(self, remote: Remote) -> Boundary:
        """What `remote` is held to now."""
        others = (other for other in self._remotes.values() if other.name != remote.name)
        return Boundary(
            name=remote.name,
            cluster_id=remote.id,
            pod_cidrs=remote.pod_cidrs,
            foreign={prefix: other.name for other in others for prefix in other.pod_cidrs}
            | dict.fromkeys(self._ours, "this cluster"),
            taken=self._taken,
        )

    def _changed(self) -> None:
        """A new table, one for all mirrors; whoever had an address keeps it."""
        claims = ((a, name) for name, hosts in self._hosts.items() for a in hosts)
        taken: dict[Address, str] = {}
        for address, name in claims:
            kept = self._taken.get(address) == name
            taken[address] = name if kept else taken.get(address, name)
        self._taken = taken | self._own_nodes
        self.version += 1
