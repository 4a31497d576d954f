"""What the local API's answers are made from."""

from __future__ import annotations

import attrs

from meshnet.agent.authorities import Authorities
from meshnet.agent.certificates import CertificateKeeper
from meshnet.agent.cluster_settings import ClusterSettings
from meshnet.agent.effect import Effect
from meshnet.agent.endpoints import Endpoints
from meshnet.agent.enforcement import Enforcement
from meshnet.agent.etcd_health import EtcdHealth
from meshnet.agent.events import DropEvents
from meshnet.agent.ipam import Ipam
from meshnet.agent.local import LocalNode
from meshnet.agent.loop import Loop
from meshnet.agent.manifests import Manifests
from meshnet.agent.mesh_view import MeshView
from meshnet.agent.ownership import Ownership
from meshnet.agent.paths import Paths
from meshnet.agent.probe import Prober
from meshnet.agent.resolver import Resolver
from meshnet.agent.services import Services
from meshnet.agent.underlay import UnderlayWatch
from meshnet.config import Settings
from meshnet.dataplane.api import Dataplane
from meshnet.mesh.leadership import Leadership
from meshnet.pki.store import PkiStore
from meshnet.registry import schema


@attrs.frozen(kw_only=True)
class Context:
    settings: Settings
    local: LocalNode
    dataplane: Dataplane
    view: MeshView
    endpoints: Endpoints
    prober: Prober
    paths: Paths
    underlay: UnderlayWatch
    events: DropEvents
    etcd_health: EtcdHealth
    loops: list[Loop]
    leadership: Leadership
    keeper: CertificateKeeper
    ownership: Ownership
    ipam: Ipam
    services: Services
    resolver: Resolver
    manifests: Manifests
    effect: Effect
    enforcement: Enforcement
    authorities: Authorities
    cluster_settings: ClusterSettings
    pki: PkiStore

    @property
    def ready(self) -> bool:
        """The node forwards, and what it forwards by is complete and told to others."""
        own = schema.node(self.local.cluster.name, self.local.name)
        tables = self.view.tables
        return tables.synced and own in tables.nodes.items and bool(self.dataplane.programs)
