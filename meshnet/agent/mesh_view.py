"""The mesh as this node sees it: every cluster's nodes, addresses and identities.

Reads the watchers' tables, holds back what vanished unannounced (logic/stale.py), and is
itself what the reconcilers and the lists read. Own cluster: `cilium/state/...`; remote
clusters: the leader's mirror under `cilium/cache/...`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TypeVar

import attrs

from meshnet.agent.local import LocalNode
from meshnet.agent.seen import Table
from meshnet.logic.ipcache import outer_address
from meshnet.logic.stale import Effective, StaleHold
from meshnet.model.addressing import Address, Prefix
from meshnet.model.cluster import Cluster
from meshnet.model.endpoint import IpEntry
from meshnet.model.identity import Identity, LabelSet
from meshnet.model.manifest import Manifest, SharedManifest
from meshnet.model.node import Node
from meshnet.model.remote import MirrorStatus, Remote
from meshnet.model.service import BackendAddress, RemoteService
from meshnet.registry import codec, schema, service_codec

T = TypeVar("T")


@attrs.frozen
class Tables:
    """One table a watched prefix."""

    config: Table[Cluster]
    nodes: Table[Node]
    ips: Table[IpEntry]
    identities: Table[Identity]
    cached_nodes: Table[Node]
    cached_ips: Table[IpEntry]
    cached_identities: Table[Identity]
    remotes: Table[Remote]
    mesh_status: Table[MirrorStatus]
    manifests: Table[Manifest]
    cached_manifests: Table[SharedManifest]
    service_addresses: Table[tuple[Address, tuple[str, str]]]
    cached_services: Table[RemoteService]
    health: Table[dict[BackendAddress, str]]
    waits: Table[bool]
    """Somebody waits for the dataplane: by key."""

    @classmethod
    def of(cls, own: Cluster) -> Tables:
        cluster, cluster_id = own.name, own.id
        return cls(
            config=Table(schema.CONFIG, codec.decode_cluster),
            nodes=Table(schema.nodes(cluster), partial(codec.decode_node, cluster_id=cluster_id)),
            ips=Table(schema.IPS, partial(codec.decode_ip_entry, cluster_id=cluster_id)),
            identities=Table(
                schema.IDENTITIES,
                partial(codec.decode_identity, cluster_id=cluster_id, cluster=cluster),
            ),
            cached_nodes=Table(schema.CACHE_NODES, codec.decode_node),
            cached_ips=Table(schema.CACHE_IPS, codec.decode_ip_entry),
            cached_identities=Table(schema.CACHE_IDENTITIES, codec.decode_identity),
            remotes=Table(schema.REMOTES, codec.decode_remote),
            mesh_status=Table(schema.MESH_STATUS, codec.decode_mirror_status),
            manifests=Table(schema.MANIFESTS, codec.decode_manifest),
            cached_manifests=Table(schema.CACHE_MANIFESTS, codec.decode_shared_manifest),
            service_addresses=Table(schema.SERVICE_ADDRESSES, service_codec.decode_service_address),
            cached_services=Table(schema.CACHE_SERVICES, service_codec.decode_service),
            health=Table(schema.HEALTH, service_codec.decode_health),
            waits=Table(schema.WAITS, lambda _key, _value: True),
        )

    def __iter__(self) -> Iterator[Table[object]]:
        return iter(attrs.astuple(self, recurse=False))

    @property
    def synced(self) -> bool:
        """Every first listing has arrived: what is missing now is really missing."""
        return all(table.synced for table in self)


class MeshView:
    """Effective rows by cluster. `observe` recomputes them; everything else reads."""

    def __init__(self, local: LocalNode, tables: Tables) -> None:
        self._local = local
        self.tables = tables
        self._cluster = local.cluster
        self._holds: defaultdict[str, StaleHold] = defaultdict(StaleHold)
        self.clusters: dict[str, Effective] = {}
        self.answering: Callable[[], Collection[Address]] = tuple
        """Node addresses that answered the latest probe."""
        self.expelled: Callable[[str], Collection[str]] = lambda _: ()
        """Nodes of a cluster that were thrown out: that they answer keeps nothing of them."""

    @property
    def own(self) -> str:
        return self._local.cluster.name

    @property
    def cluster(self) -> Cluster:
        """As it is agreed on now; as the agent knew it at its start until etcd has answered, and
        as it was last while its key cannot be used."""
        self._cluster = self.tables.config.items.get(schema.CONFIG, self._cluster)
        return self._cluster

    def observe(self) -> float | None:
        """Recompute from the tables; answers the seconds after which time alone changes it."""
        now = time.monotonic()
        nodes = _by_cluster(self.tables.cached_nodes.items, self._remote_names())
        ips = _by_cluster(self.tables.cached_ips.items, self._remote_names())
        nodes[self.own] = list(self.tables.nodes.items.values())
        ips[self.own] = list(self.tables.ips.items.values())
        for gone in self._holds.keys() - nodes.keys() - ips.keys():
            del self._holds[gone]
        answering = set(self.answering())
        self.clusters = {
            cluster: self._holds[cluster].observe(
                {node.name: node for node in nodes[cluster]},
                {entry.prefix: entry for entry in ips[cluster]},
                now,
                answering=self._names_answering(cluster, answering),
            )
            for cluster in nodes.keys() | ips.keys()
        }
        due = [view.look_again for view in self.clusters.values() if view.look_again is not None]
        return max(0.0, min(due) - now) if due else None

    def nodes(self) -> list[Node]:
        return [node for view in self.clusters.values() for node in view.nodes.values()]

    def nodes_of(self, cluster: str) -> list[Node]:
        view = self.clusters.get(cluster)
        return list(view.nodes.values()) if view else []

    def peer_addresses(self) -> set[Address]:
        """Where this node sends what is for other nodes."""
        own = self._local.as_node()
        others = (node for node in self.nodes() if node.key != own.key)
        return {address for node in others if (address := outer_address(own, node))}

    def labels(self) -> dict[int, LabelSet]:
        return {identity.number: identity.labels for identity in self.identities()}

    def identities(self) -> list[Identity]:
        own = self.tables.identities.items.values()
        return [*own, *self.tables.cached_identities.items.values()]

    def mirror_status(self, cluster: str) -> MirrorStatus | None:
        """What the leader says of its mirror; None before it said anything."""
        return self.tables.mesh_status.items.get(schema.mesh_status(cluster))

    def cluster_name(self, cluster_id: int) -> str:
        """The name of a cluster by its id; empty for one we do not know."""
        if cluster_id == self._local.cluster.id:
            return self.own
        remotes = self.tables.remotes.items.values()
        return next((remote.name for remote in remotes if remote.id == cluster_id), "")

    def asked_by_others(self) -> dict[str, SharedManifest]:
        """Manifests of other clusters for the whole mesh, by key: of those we take any from."""
        taken = self._remote_names().intersection(self.cluster.policies_from)
        return {
            key: shared
            for key, shared in sorted(self.tables.cached_manifests.items.items())
            if shared.origin in taken
        }

    def stale(self, cluster: str) -> frozenset[Prefix]:
        view = self.clusters.get(cluster)
        return view.stale_ips if view else frozenset()

    def _remote_names(self) -> set[str]:
        return {remote.name for remote in self.tables.remotes.items.values()}

    def _names_answering(self, cluster: str, answering: set[Address]) -> set[str]:
        before = self.clusters.get(cluster)
        if before is None:
            return set()
        expelled = self.expelled(cluster)
        return {
            name
            for name, node in before.nodes.items()
            if name not in expelled and answering & set(node.addresses)
        }


def _by_cluster(items: dict[str, T], clusters: set[str]) -> defaultdict[str, list[T]]:
    """Mirrored rows by the cluster in their key: cilium/cache/<kind>/v1/<cluster>/..."""
    # A remote that lost every row is still a remote: without its hold they would go at once.
    rows: defaultdict[str, list[T]] = defaultdict(list, {cluster: [] for cluster in clusters})
    for key, item in items.items():
        cluster = key.split("/")[4]
        if cluster in clusters:
            rows[cluster].append(item)
    return rows
