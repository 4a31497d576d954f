"""The watchers: one a prefix, each keeping its table true and pulling the triggers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from meshnet.agent.local import LocalNode
from meshnet.agent.mesh_view import MeshView
from meshnet.errors import RegistryError
from meshnet.kvstore.api import KV
from meshnet.model.remote import Remote
from meshnet.registry import schema
from meshnet.registry.session import Session


class Watchers:
    """Args: `changed` is called after every update of any table but the manifests', for which
    there is `manifests_changed`; `remotes_changed` with the remotes of now, `settings_changed`
    when the cluster's may be others."""

    def __init__(
        self,
        *,
        local: LocalNode,
        kv: KV,
        session: Session,
        view: MeshView,
        changed: Callable[[], None],
        remotes_changed: Callable[[list[Remote]], None],
        manifests_changed: Callable[[], None],
        settings_changed: Callable[[], None],
    ) -> None:
        self._kv = kv
        self._session = session
        self._tables = view.tables
        self._own_key = schema.node(local.cluster.name, local.name)
        self._changed = changed
        self._remotes_changed = remotes_changed
        self._manifests_changed = manifests_changed
        self._settings_changed = settings_changed
        self._own_key_gone = asyncio.Event()

    async def run(self) -> None:
        """Never returns."""
        tables = self._tables
        on_change = {
            id(tables.nodes): self._nodes_changed,
            id(tables.remotes): self._announce_remotes,
            id(tables.manifests): self._manifests_changed,
            id(tables.config): self._announce_settings,
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(self._defend())
            for table in tables:
                follow = table.follow(self._kv, on_change.get(id(table), self._changed))
                group.create_task(follow)

    def _nodes_changed(self) -> None:
        if self._own_key in self._session.keys and self._own_key not in self._tables.nodes.items:
            self._own_key_gone.set()
        self._changed()

    def _announce_remotes(self) -> None:
        self._remotes_changed(list(self._tables.remotes.items.values()))
        self._changed()

    def _announce_settings(self) -> None:
        self._settings_changed()
        self._changed()

    async def _defend(self) -> None:
        """Our own key went though we live: etcd thawed, or somebody deleted it. A lost lease
        is replaced at once, a deleted key is written again."""
        while True:
            await self._own_key_gone.wait()
            self._own_key_gone.clear()
            with contextlib.suppress(RegistryError):  # Session.run goes on trying
                await self._session.renew()
                if self._own_key not in self._tables.nodes.items:
                    await self._session.reassert()
