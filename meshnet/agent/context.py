"""Everything the agent's parts share, built once in main.py and passed by hand."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from meshnet.agent.endpoints import Endpoints
from meshnet.agent.etcd_health import EtcdHealth
from meshnet.agent.events import DropEvents
from meshnet.agent.local import LocalNode
from meshnet.agent.loop import Loop
from meshnet.agent.mesh_view import MeshView
from meshnet.agent.probe import Prober
from meshnet.agent.problems import Problem
from meshnet.config import Paths, Settings
from meshnet.dataplane.api import Dataplane
from meshnet.kvstore.api import KV
from meshnet.mesh.status import MirrorStatus
from meshnet.registry.session import Session


@attrs.define(kw_only=True)
class Context:
    paths: Paths
    settings: Settings
    local: LocalNode
    kv: KV
    session: Session
    dataplane: Dataplane
    view: MeshView
    endpoints: Endpoints
    prober: Prober
    events: DropEvents
    etcd_health: EtcdHealth
    loops: list[Loop]
    mesh_status: Callable[[str], MirrorStatus]
    """By remote cluster; an empty status for one that no leader has reported yet."""
    leading: Callable[[], bool]
    more_problems: Callable[[], list[Problem]]

    @property
    def ready(self) -> bool:
        """The node forwards, and what it forwards by is complete."""
        return self.view.tables.synced and bool(self.dataplane.programs)
