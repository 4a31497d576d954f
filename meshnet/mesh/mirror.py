"""Copies one remote cluster into our etcd, as far as it is believed.

The leader runs one mirror a remote; the agents read only their own etcd. Bytes are copied
unchanged, so nothing is lost that a reader may understand and we do not. Order matters to
readers: the remote's cluster-config, then its data in full, then the canaries; and when it
is removed, the config first. A lost connection changes nothing: the copy stays as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import time
from collections.abc import Callable

import structlog

from meshnet.errors import Compacted, Denied, MeshnetError, Unreachable
from meshnet.kvstore.api import KV, Delete, Operation, Put
from meshnet.logic.admission import MAX_BYTES, MAX_KEYS, spoken
from meshnet.mesh.boundaries import Boundaries
from meshnet.mesh.budget import Budget, weight
from meshnet.mesh.claims import kinds, kinds_of, manifests_of
from meshnet.mesh.leadership import FencedWriter, first_error
from meshnet.mesh.reader import Changed, Introduced, Listed, News, NotShown, RemoteReader
from meshnet.mesh.refusals import LastingRefusals
from meshnet.mesh.replica import Replica
from meshnet.model.endpoint import IpEntry
from meshnet.model.identity import ReservedIdentity
from meshnet.model.remote import MirrorStatus, RefusedKey, Remote
from meshnet.registry import codec, schema

PUBLISH_S = 2.0
"""Counts are published no more often; coming, going and becoming ready at once."""
BOUNDARY_S = 1.0
RETRY_S = 0.2
LONGEST_RETRY_S = 5.0
STEADY_S = 10.0
"""A session that lasted so long was no failure to connect: the next begins at once."""
TOLD_REFUSALS = 20
"""In a status and at a time in the log; the rest is counted."""


class Mirror:
    """`run` never ends; it raises LeaseLost when this node leads no more."""

    def __init__(
        self,
        remote: Remote,
        kv: KV,
        writer: FencedWriter,
        boundaries: Boundaries,
        open_remote: Callable[[Remote], KV],
        *,
        max_keys: int = MAX_KEYS,
        max_bytes: int = MAX_BYTES,
        budget: Budget | None = None,
        publish_s: float = PUBLISH_S,
    ) -> None:
        self._remote = remote
        self._kv = kv
        self._writer = writer
        self._boundaries = boundaries
        self._open_remote = open_remote
        self._publish_s = publish_s
        self._kinds = kinds_of(remote)
        self._boundary = boundaries.of(remote)
        self._replica = Replica(self._boundary, self._kinds, max_keys=max_keys, max_bytes=max_bytes)
        self._budget = budget or Budget()
        self._reader = RemoteReader(remote, self._kinds, self._hear)
        self._refusals = LastingRefusals()
        self._listed: set[str] = set()
        self._announced: dict[str, bytes] = {}
        self._config: bytes | None = None
        self._work = asyncio.Event()
        self._turn = asyncio.Event()
        self._connected = False
        self._copied_in_full = False
        self._error: str | None = None
        self._reconnects = 0
        self._last_event_at: datetime.datetime | None = None
        self._log = structlog.get_logger(cluster=remote.name)

    async def run(self) -> None:
        await self._recall()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read())
            tasks.create_task(self._copy())
            tasks.create_task(self._keep_boundary())
            tasks.create_task(self._publish())

    # --- what our etcd has ----------------------------------------------------------------

    async def _recall(self) -> None:
        """A mirror takes over where the last leader's left off."""
        for kind in self._kinds:
            self._replica.copied((await self._kv.list(kind.cached)).pairs)
        listing = await self._kv.list(schema.canaries(self._remote.name))
        self._announced = {pair.key: pair.value for pair in listing.pairs}
        config = await self._kv.get(schema.cluster_config(self._remote.name))
        if config is not None:
            self._announced[config.key] = config.value

    # --- from the remote ------------------------------------------------------------------

    async def _read(self) -> None:
        delay = RETRY_S
        while True:
            began = time.monotonic()
            try:
                await self._session()
            except* MeshnetError as group:
                self._disconnected(spoken(str(first_error(group))))
            except* Exception as group:
                # Whatever a remote makes of our code must stay its own problem.
                self._log.exception("reading a remote failed", error=str(first_error(group)))
                self._disconnected(f"fault while reading it: {first_error(group)!r}")
            delay = RETRY_S if time.monotonic() - began > STEADY_S else delay
            await asyncio.sleep(delay * random.uniform(0.5, 1))
            delay = min(delay * 2, LONGEST_RETRY_S)

    async def _session(self) -> None:
        remote = self._open_remote(self._remote)
        try:
            await self._reader.session(remote, self._is_connected)
        finally:
            await remote.close()

    def _is_connected(self, waiting_for: str | None) -> None:
        if not self._connected:
            self._log.info("remote connected", error=waiting_for)
        self._connected, self._error = True, waiting_for
        self._turn.set()

    def _disconnected(self, reason: str) -> None:
        if self._connected:
            self._reconnects += 1
        if self._connected or self._error != reason:
            self._log.warning("remote not connected", error=reason)
        self._connected, self._error = False, reason
        self._turn.set()

    def _hear(self, news: News) -> None:
        """Take news in. Raises Compacted to have the kind listed again."""
        match news:
            case Introduced(config):
                self._config = config
            case Listed(kind, pairs):
                self._replica.relist(kind, pairs)
                self._listed.add(kind.exported)
            case NotShown(kind):
                self._listed.add(kind.exported)  # known as far as can be: the copy stays as it is
            case Changed(kind, events):
                self._replica.apply(kind, events)
                self._last_event_at = datetime.datetime.now(datetime.UTC)
        self._boundaries.believed(self._remote.name, self._replica.admission.hosts)
        self._work.set()
        if isinstance(news, Changed) and self._replica.starved:
            raise Compacted("there is room again for keys that were left out")

    async def _keep_boundary(self) -> None:
        seen = -1
        while True:
            if self._boundaries.version != seen:
                seen = self._boundaries.version
                boundary = self._boundaries.of(self._remote)
                if boundary != self._boundary:
                    self._boundary = boundary
                    self._replica.hold_to(boundary)
                    self._work.set()
            await asyncio.sleep(BOUNDARY_S)

    # --- into our etcd ----------------------------------------------------------------------

    async def _copy(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            # Not before every kind is known: an address whose node is still to come would be
            # taken out of a copy that is right.
            complete = len(self._listed) == len(self._kinds)
            changes = self._replica.operations() if complete else []
            first, last = self._announcements(complete=complete)
            operations = [*first, *changes, *last]
            await self._budget.spend(weight(operations))
            try:
                await self._writer.write(operations)
            except (Unreachable, Denied) as error:
                self._log.warning("mirror not written", error=str(error))
                self._replica.doubt(changes)
                self._work.set()
                await asyncio.sleep(RETRY_S)
                continue
            self._replica.written(changes)
            self._announced |= {put.key: put.value for put in (*first, *last)}
            if complete and not self._copied_in_full:
                self._copied_in_full = True
                self._turn.set()

    def _announcements(self, *, complete: bool) -> tuple[list[Put], list[Put]]:
        """What readers must find before the data, and after it."""
        key = schema.cluster_config(self._remote.name)
        config = self._config
        news = config is not None and self._announced.get(key) != config
        now = datetime.datetime.now(datetime.UTC).isoformat().encode()
        canaries = [kind.cache_canary for kind in self._kinds if complete and kind.cache_canary]
        return (
            [Put(key, config)] if config is not None and news else [],
            [Put(canary, now) for canary in canaries if canary not in self._announced],
        )

    # --- for operators ----------------------------------------------------------------------

    def status(self) -> MirrorStatus:
        nodes, ips, identities, services, *_ = self._replica.believed().values()
        endpoints = {
            (entry.host, entry.namespace, entry.endpoint_id or entry.name or entry.prefix)
            for entry in ips
            if isinstance(entry, IpEntry) and entry.identity > max(ReservedIdentity)
        }
        lasting, fresh = self._refusals.update(self._replica.refusals, time.monotonic())
        for key in fresh[:TOLD_REFUSALS]:
            self._log.error("key of a remote refused", key=spoken(key), error=lasting[key])
        if len(fresh) > TOLD_REFUSALS:
            self._log.error("more keys of a remote refused", count=len(fresh) - TOLD_REFUSALS)
        return MirrorStatus(
            name=self._remote.name,
            id=self._remote.id,
            connected=self._connected,
            ready=self._connected and self._error is None and self._copied_in_full,
            nodes=len(nodes),
            identities=len(identities),
            endpoints=len(endpoints),
            services=len(services),
            last_event_at=self._last_event_at,
            reconnects=self._reconnects,
            error=self._error,
            refused=len(lasting),
            refusals=tuple(
                RefusedKey(spoken(key), lasting[key]) for key in list(lasting)[:TOLD_REFUSALS]
            ),
        )

    async def _publish(self) -> None:
        published = None
        while True:
            status = self.status()
            if status != published:
                value = codec.encode_mirror_status(status)
                key = schema.mesh_status(self._remote.name)
                try:
                    await self._writer.write([Put(key, value, self._writer.lease)])
                    published = status
                except (Unreachable, Denied) as error:
                    self._log.warning("status of a remote not written", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._publish_s):
                    await self._turn.wait()
            self._turn.clear()


async def remove_mirror(writer: FencedWriter, cluster: str) -> None:
    """Take a remote's copy away: who reads it must first learn that it is going."""
    everything = (*kinds(cluster), manifests_of(cluster))
    caches = [Delete(kind.cached, prefix=True) for kind in everything]
    steps: list[list[Operation]] = [
        [Delete(schema.cluster_config(cluster)), Delete(schema.mesh_status(cluster))],
        [Delete(schema.canaries(cluster), prefix=True)],
        [*caches],
    ]
    for step in steps:
        await writer.write(step)
