"""What the mesh leader does while it leads: one heartbeat, one mirror a remote, one broom.

Everything here begins anew with each term, from what etcd says. A fault of etcd that one of
the parts cannot wait out ends the term; the next one, here or elsewhere, repairs the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import attrs
import structlog

from meshnet.errors import PoisonedKey
from meshnet.kvstore.api import KV
from meshnet.mesh.boundaries import Boundaries
from meshnet.mesh.export import Export
from meshnet.mesh.heartbeat import HEARTBEAT_S, Heartbeat
from meshnet.mesh.identity_gc import ROUND_S, IdentityCollector
from meshnet.mesh.leadership import FencedWriter
from meshnet.mesh.mirror import PUBLISH_S, Mirror, remove_mirror
from meshnet.model.cluster import Cluster
from meshnet.model.node import Node
from meshnet.model.remote import Remote, RemoteState
from meshnet.registry import codec, schema
from meshnet.registry.follow import Snapshot, follow


@attrs.frozen(kw_only=True)
class Intervals:
    """Seconds. Only tests change these."""

    heartbeat_s: float = HEARTBEAT_S
    identity_round_s: float = ROUND_S
    publish_s: float = PUBLISH_S


class MeshLeader:
    """Give `lead` to `Leadership.run`.

    Args:
        open_remote: a store that reads a remote through its gateways, with our mirror
            certificate and trust in the remote's mesh CA alone. The mirror closes it.
        exports: what others are told beside what nodes put themselves.
    """

    def __init__(
        self,
        kv: KV,
        cluster: Cluster,
        open_remote: Callable[[Remote], KV],
        *,
        exports: Sequence[Export] = (),
        intervals: Intervals | None = None,
    ) -> None:
        self._kv = kv
        self._cluster = cluster
        self._open_remote = open_remote
        self._intervals = intervals or Intervals()
        self._exports = exports
        self._log = structlog.get_logger()

    async def lead(self, writer: FencedWriter) -> None:
        """Until cancelled. Raises LeaseLost when the term is over."""
        beat = Heartbeat(self._kv, self._cluster, interval_s=self._intervals.heartbeat_s)
        broom = IdentityCollector(self._kv, interval_s=self._intervals.identity_round_s)
        boundaries = Boundaries(self._cluster)
        own_nodes_known = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(beat.run(writer))
            tasks.create_task(broom.run(writer))
            for export in self._exports:
                tasks.create_task(export.run(writer))
            tasks.create_task(self._follow_own_nodes(boundaries, own_nodes_known))
            # Until our own nodes are known a remote could pass its own off as one of them.
            await own_nodes_known.wait()
            await self._follow_remotes(writer, boundaries)

    async def _follow_own_nodes(self, boundaries: Boundaries, known: asyncio.Event) -> None:
        prefix = schema.nodes(self._cluster.name)
        nodes: dict[str, Node | None] = {}
        async for update in follow(self._kv, prefix, codec.decode_node, self._poisoned):
            nodes = dict(update.items) if isinstance(update, Snapshot) else nodes | update.items
            boundaries.own_nodes(node for node in nodes.values() if node is not None)
            known.set()

    async def _follow_remotes(self, writer: FencedWriter, boundaries: Boundaries) -> None:
        """One mirror for each committed remote, and no copy of any other."""
        remotes: dict[str, Remote] = {}
        left_over = await self._mirrored()
        async with asyncio.TaskGroup() as tasks:
            mirrors = _Mirrors(
                tasks,
                lambda remote: Mirror(
                    remote,
                    self._kv,
                    writer,
                    boundaries,
                    self._open_remote,
                    publish_s=self._intervals.publish_s,
                ),
            )
            raw: dict[str, bytes | None] = {}
            async for update in follow(self._kv, schema.REMOTES, _as_it_is, self._poisoned):
                raw = dict(update.items) if isinstance(update, Snapshot) else raw | update.items
                there = {schema.last_of(k): v for k, v in raw.items() if v is not None}
                remotes = self._read(there, before=remotes)
                boundaries.remotes(remotes)
                gone = (left_over | mirrors.names) - there.keys()
                left_over = set()
                await mirrors.run(
                    {n: r for n, r in remotes.items() if r.state is RemoteState.COMMITTED}
                )
                for cluster in sorted(gone):
                    await remove_mirror(writer, cluster)
                    self._log.info("mirror removed", cluster=cluster)

    async def _mirrored(self) -> set[str]:
        """Remotes of which our etcd has a copy, or the rest of one."""
        found: set[str] = set()
        for prefix in (
            schema.CLUSTER_CONFIGS,
            schema.SYNCED,
            schema.CACHE_NODES,
            schema.CACHE_MANIFESTS,
        ):
            pairs = (await self._kv.list(prefix)).pairs
            found |= {pair.key.removeprefix(prefix).partition("/")[0] for pair in pairs}
        return found - {self._cluster.name}

    def _read(self, raw: dict[str, bytes], *, before: dict[str, Remote]) -> dict[str, Remote]:
        """By name. One that cannot be read stays what it was: its copy must not be lost."""
        remotes = {}
        for name, value in raw.items():
            try:
                remotes[name] = codec.decode_remote(schema.remote(name), value)
            except PoisonedKey as error:
                self._poisoned(error)
                if name in before:
                    remotes[name] = before[name]
        return remotes

    def _poisoned(self, error: PoisonedKey) -> None:
        self._log.error("key skipped", key=error.key, error=error.reason)


class _Mirrors:
    """The running mirrors; one whose remote changed is started anew."""

    def __init__(self, tasks: asyncio.TaskGroup, make: Callable[[Remote], Mirror]) -> None:
        self._tasks = tasks
        self._make = make
        self._running: dict[str, tuple[Remote, asyncio.Task[None]]] = {}

    @property
    def names(self) -> set[str]:
        return set(self._running)

    async def run(self, wanted: dict[str, Remote]) -> None:
        """Make the running mirrors those of `wanted`; the stopped ones write no more."""
        for name, (remote, task) in list(self._running.items()):
            if wanted.get(name) != remote:
                task.cancel()
                await asyncio.wait((task,))
                del self._running[name]
        for name in wanted.keys() - self._running.keys():
            mirror = self._make(wanted[name])
            self._running[name] = (wanted[name], self._tasks.create_task(mirror.run()))


def _as_it_is(key: str, value: bytes) -> bytes:
    return value
