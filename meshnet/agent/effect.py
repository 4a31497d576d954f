"""Until what was applied is in effect on every node: what `apply --wait` waits for.

Who waits writes a key under WAITS; every agent of the cluster that sees one answers, under
ACKS, how far its dataplane has come: up to which revision of manifests its endpoints have
their identities and its maps their rows, and up to which revision of addresses and
identities. Without a wait nobody writes anything.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import attrs
import cattrs

from meshnet.agent.local import LocalNode
from meshnet.agent.mesh_view import MeshView
from meshnet.errors import PoisonedKey, Timeout, Unreachable
from meshnet.kvstore.api import KV, KeyValue
from meshnet.kvstore.patience import ride
from meshnet.registry import schema
from meshnet.registry.session import Session

WAIT_TTL_S = 60
ASK_AGAIN_S = 0.02


@attrs.frozen
class Progress:
    """Revisions of this cluster's etcd that a node's dataplane has caught up with."""

    manifests: int = 0
    addresses: int = 0
    identities: int = 0

    def reached(self, other: Progress) -> bool:
        return (
            self.manifests >= other.manifests
            and self.addresses >= other.addresses
            and self.identities >= other.identities
        )


class Effect:
    def __init__(self, local: LocalNode, kv: KV, session: Session, view: MeshView) -> None:
        self._local = local
        self._kv = kv
        self._session = session
        self._view = view
        self.settled: Callable[[], bool] = lambda: True
        """Whether every endpoint here has the identity that the manifests give it."""
        self._told = Progress()

    def now(self) -> Progress:
        """To be asked before a pass: what it will have seen."""
        tables = self._view.tables
        return Progress(
            manifests=tables.manifests.revision if self.settled() else self._told.manifests,
            addresses=tables.ips.revision,
            identities=tables.identities.revision,
        )

    @property
    def overdue(self) -> bool:
        """Somebody waits for what a pass that begins now could tell, and none has told."""
        tables = self._view.tables
        return bool(tables.waits.items) and self.now() != self._told

    async def tell(self, reached: Progress) -> None:
        """After a pass: answer those who wait."""
        if not self._view.tables.waits.items or reached == self._told:
            return
        self._told = reached
        value = json.dumps(attrs.asdict(reached)).encode()
        await self._session.put(schema.ack(self._local.name), value)

    async def wait(self, revision: int, *, timeout_s: float, identities: bool) -> None:
        """Until every node of this cluster has manifests up to `revision` in effect.

        Args:
            identities: they change endpoints' identities, so the other nodes must have
                learned those too.

        Raises:
            Timeout: with the nodes that are behind, or that etcd stayed away.
        """
        deadline = time.monotonic() + timeout_s
        try:
            lease = await ride(partial(self._kv.grant, WAIT_TTL_S))
            try:
                key = schema.wait(secrets.token_hex(8))
                await ride(partial(self._kv.put, key, b"1", lease=lease))
                await self._until(Progress(manifests=revision), deadline)
                if identities:
                    await self._until(await self._latest(revision), deadline)
            finally:
                with suppress(Unreachable):  # it ends by itself
                    await self._kv.revoke(lease)
        except Unreachable as error:
            raise Timeout(f"applied, but whether it is in effect is not known: {error}") from error

    async def _latest(self, revision: int) -> Progress:
        ips = await self._pairs(schema.IPS)
        identities = await self._pairs(schema.IDENTITIES)
        return Progress(
            manifests=revision,
            addresses=max((pair.mod_revision for pair in ips), default=0),
            identities=max((pair.mod_revision for pair in identities), default=0),
        )

    async def _until(self, wanted: Progress, deadline: float) -> None:
        while behind := await self._behind(wanted):
            if time.monotonic() > deadline:
                raise Timeout(
                    f"applied, but not in effect yet on {', '.join(sorted(behind))}: "
                    "see `meshnet status` there"
                )
            await asyncio.sleep(ASK_AGAIN_S)

    async def _behind(self, wanted: Progress) -> set[str]:
        told = {
            schema.last_of(pair.key): decode_progress(pair.key, pair.value)
            for pair in await self._pairs(schema.ACKS)
        }
        nodes = {schema.last_of(key) for key in self._view.tables.nodes.items}
        return {name for name in nodes if not told.get(name, Progress()).reached(wanted)}

    async def _pairs(self, prefix: str) -> tuple[KeyValue, ...]:
        return (await ride(partial(self._kv.list, prefix))).pairs


def decode_progress(key: str, value: bytes) -> Progress:
    try:
        return cattrs.structure(json.loads(value), Progress)
    except (ValueError, cattrs.BaseValidationError) as error:
        raise PoisonedKey(key, str(error)) from error
