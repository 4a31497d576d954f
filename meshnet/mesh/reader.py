"""Reads one remote through its gateways: what it is, whether it lives, and all its keys.

One `session` is one connected time. It ends only by raising, and whoever calls begins
another: everything is listed again then, so that what was deleted in between is noticed and
a remote that came back from a backup is read as it is now.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable

import attrs

from meshnet.errors import Compacted, NotPermitted, PoisonedKey, Refused, Unreachable
from meshnet.kvstore.api import KV, Deleted, KeyValue
from meshnet.logic.agreement import identities
from meshnet.mesh.claims import Kind
from meshnet.model.ability import MAX_CONNECTED_CLUSTERS
from meshnet.model.remote import Remote
from meshnet.registry import codec, schema

CANARY_POLL_S = 0.5
PULSE_S = 10.0
MAX_CONFIG_BYTES = 64 << 10
SILENCE_S = 120.0
"""A remote whose heartbeat stands still for so long has no leader (Cilium's limit too)."""


@attrs.frozen
class Introduced:
    """The remote's cluster-config as it should be mirrored."""

    config: bytes


@attrs.frozen
class Listed:
    """Everything of one kind."""

    kind: Kind
    pairs: tuple[KeyValue, ...]


@attrs.frozen
class NotShown:
    """The gateway shows nothing of one kind, which says nothing about what there is: of a
    remote amid an upgrade, one gateway may show it and another may not yet."""

    kind: Kind


@attrs.frozen
class Changed:
    """What happened to one kind in one revision."""

    kind: Kind
    events: tuple[KeyValue | Deleted, ...]


News = Introduced | Listed | NotShown | Changed


class RemoteReader:
    """Calls `tell` with news, in order within a kind."""

    def __init__(
        self,
        remote: Remote,
        kinds: Iterable[Kind],
        tell: Callable[[News], None],
        *,
        canary_poll_s: float = CANARY_POLL_S,
        pulse_s: float = PULSE_S,
        silence_s: float = SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remote = remote
        self._kinds = tuple(kinds)
        self._tell = tell
        self._canary_poll_s = canary_poll_s
        self._pulse_s = pulse_s
        self._silence_s = silence_s
        self._clock = clock

    async def session(self, kv: KV, connected: Callable[[str | None], None]) -> None:
        """Read until something breaks; `connected` hears why it still has to wait, or None.

        Raises:
            Unreachable, Denied: no answer, or a refusal.
            Refused: the remote is not the cluster that joined.
        """
        waits_for_canaries = await self._introduce(kv)
        connected(None)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._feel_the_pulse(kv))
            if waits_for_canaries:
                await self._wait_for_canaries(kv, connected)
            connected(None)
            for kind in self._kinds:
                tasks.create_task(self._follow(kv, kind))

    async def _introduce(self, kv: KV) -> bool:
        """Check who answers; True if it writes canaries."""
        key = schema.cluster_config(self._remote.name)
        found = await kv.get(key)
        if found is None:
            raise Unreachable(f"{self._remote.name} has no cluster-config yet")
        if len(found.value) > MAX_CONFIG_BYTES:
            raise Refused(f"{key} has {len(found.value)} bytes: {MAX_CONFIG_BYTES} at most")
        config = codec.decode_cluster_config(key, found.value)
        if config.id != self._remote.id:
            raise Refused(
                f"{self._remote.name} answers with cluster id {config.id}, but joined with "
                f"{self._remote.id}: was it set up anew? `mesh leave` it and join again"
            )
        check = identities(
            MAX_CONNECTED_CLUSTERS, config.max_connected_clusters, f"cluster {self._remote.name!r}"
        )
        if not check.ok:
            raise Refused(check.text)
        self._tell(Introduced(_as_cached(key, found.value)))
        return config.synced_canaries

    async def _wait_for_canaries(self, kv: KV, waiting: Callable[[str | None], None]) -> None:
        """Until every kind was written in full: to read before would look like deletions."""
        while True:
            there = await kv.list(schema.canaries(self._remote.name))
            keys = {pair.key for pair in there.pairs}
            canaries = [kind.canary for kind in self._kinds if kind.canary is not None]
            missing = [canary for canary in canaries if canary not in keys]
            if not missing:
                return
            waiting(f"{self._remote.name} has not announced {missing[0]} yet")
            await asyncio.sleep(self._canary_poll_s)

    async def _follow(self, kv: KV, kind: Kind) -> None:
        while True:
            try:
                listing = await kv.list(kind.exported)
            except NotPermitted:
                if kind.canary is not None:
                    raise
                self._tell(NotShown(kind))  # its version has no such kind yet
                await asyncio.sleep(self._silence_s)
                continue
            self._tell(Listed(kind, listing.pairs))
            watch = kv.watch(kind.exported, after=listing.revision, store=listing.store)
            async with contextlib.aclosing(watch) as batches:
                with contextlib.suppress(Compacted):
                    async for batch in batches:
                        self._tell(Changed(kind, batch.events))

    async def _feel_the_pulse(self, kv: KV) -> None:
        """A gateway may answer for long after its cluster lost the leader that speaks for it."""
        seen, since = -1, self._clock()
        while True:
            beat = await kv.get(schema.HEARTBEAT)
            revision = beat.mod_revision if beat else 0
            if revision != seen:
                seen, since = revision, self._clock()
            elif self._clock() - since >= self._silence_s:
                silent = round(self._clock() - since)
                raise Unreachable(f"{self._remote.name} had no heartbeat for {silent} s")
            await asyncio.sleep(self._pulse_s)


def _as_cached(key: str, config: bytes) -> bytes:
    """A cluster-config as it stands in a mirror; what we do not know is kept."""
    read = json.loads(config)
    capabilities = read.get("capabilities") or {}
    if not isinstance(capabilities, dict):
        raise PoisonedKey(key, "capabilities are no JSON object")
    read["capabilities"] = {**capabilities, "cached": True}
    return json.dumps(read, separators=(",", ":")).encode()
