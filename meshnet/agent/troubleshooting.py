"""`mesh troubleshoot`, as the local API asks for it: a ladder for each remote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs

from meshnet.agent.mesh_view import MeshView
from meshnet.agent.start import mirror_tls
from meshnet.errors import NotFound
from meshnet.kvstore.api import KV
from meshnet.kvstore.channel import ClientTls
from meshnet.mesh.peering import access_tls
from meshnet.mesh.troubleshoot import Ladder
from meshnet.model.remote import Remote
from meshnet.pki.store import PkiStore


class Troubleshooting:
    """`where`: the endpoints at which a remote is read now."""

    def __init__(
        self, pki: PkiStore, kv: KV, view: MeshView, where: Callable[[Remote], tuple[str, ...]]
    ) -> None:
        self._pki = pki
        self._kv = kv
        self._view = view
        self._where = where

    async def climb(self, cluster: str | None) -> list[dict[str, Any]]:
        """A row a rung, of one remote or of all. Raises NotFound for one that is none."""
        remotes = sorted(self._view.tables.remotes.items.values(), key=lambda each: each.name)
        chosen = [remote for remote in remotes if cluster in (None, remote.name)]
        if cluster is not None and not chosen:
            known = ", ".join(remote.name for remote in remotes) or "none"
            raise NotFound(f"cluster {cluster!r} is not in the mesh; remotes: {known}")
        ladders = await asyncio.gather(*(self._ladder(remote).climb() for remote in chosen))
        return [
            {"cluster": remote.name, **attrs.asdict(rung)}
            for remote, rungs in zip(chosen, ladders, strict=True)
            for rung in rungs
        ]

    def _ladder(self, remote: Remote) -> Ladder:
        tls: ClientTls
        if remote.access is not None:
            tls = access_tls(remote.access)
        else:
            tls = mirror_tls(self._pki, remote)
        status = self._view.mirror_status(remote.name)
        return Ladder(remote, self._where(remote), tls, self._kv, status)
