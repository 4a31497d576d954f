"""One node's endpoints over a kernel, a dataplane and an etcd that are dictionaries."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from meshnet.agent.endpoint_store import EndpointStore
from meshnet.agent.endpoints import Endpoints
from meshnet.agent.enforcement import Enforcement
from meshnet.agent.local import LocalNode
from meshnet.agent.mesh_view import MeshView, Tables
from meshnet.agent.ownership import Ownership
from meshnet.agent.publication import Publication
from meshnet.dataplane.memory import MemoryDataplane
from meshnet.kvstore.memory import MemoryKV
from meshnet.model.addressing import PodCIDR, parse_prefix
from meshnet.model.cluster import Cluster
from meshnet.model.kernel import Underlay
from meshnet.netlink import memory
from meshnet.netlink.memory import MemoryNetlink
from meshnet.registry import codec, schema
from meshnet.registry.session import Session

CLUSTER = Cluster(
    name="east", id=1, pod_cidrs=(parse_prefix("10.1.0.0/16"), parse_prefix("fd00:10:1::/48"))
)
POD_CIDRS = (
    PodCIDR(network=parse_prefix("10.1.4.0/29"), node="east-1"),  # five endpoints
    PodCIDR(network=parse_prefix("fd00:10:1:4::/112"), node="east-1"),
)
UNDERLAY = Underlay(
    ifname="eth1",
    ifindex=2,
    mac="02:00:00:00:00:02",
    mtu=1500,
    addresses=(ip_address("172.31.0.11"), ip_address("fd31::11")),
)


def local_node(pod_cidrs: tuple[PodCIDR, ...] = POD_CIDRS) -> LocalNode:
    return LocalNode(
        name="east-1", cluster=CLUSTER, underlay=UNDERLAY, pod_cidrs=pod_cidrs, boot_id="b"
    )


class Kernel(MemoryNetlink):
    """Its namespaces are files too, for who asks the file system whether they are there."""

    async def create_netns(self, name: str) -> str:
        path = await super().create_netns(name)
        Path(path).touch()
        return path

    async def delete_netns(self, name: str) -> None:
        await super().delete_netns(name)
        Path(f"{memory.RUN_DIR}/{name}").unlink(missing_ok=True)


class Node:
    """What outlives an agent, and the agent's part that owns the endpoints."""

    def __init__(self, directory: Path) -> None:
        self.kv = MemoryKV()
        self.kernel = Kernel()
        self.dataplane = MemoryDataplane()
        self.store = EndpointStore(directory / "endpoints")
        self.tasks: set[asyncio.Task[None]] = set()
        self.namespaces: dict[str, dict[str, str]] | None = {}
        """Labels by namespace; None: not known yet."""
        self.start_agent()

    def start_agent(self, pod_cidrs: tuple[PodCIDR, ...] = POD_CIDRS) -> None:
        """Another agent takes over; what the one before had in memory is gone."""
        for task in self.tasks:
            task.cancel()
        self.tasks.clear()
        local = local_node(pod_cidrs)
        self.session = Session(self.kv)
        self.ownership = Ownership(self.kv, local.pod_cidrs)
        self.view = MeshView(local, Tables.of(local.cluster))
        for table in self.view.tables:
            table.synced = True
        self.enforcement = Enforcement(local, self.view, self.dataplane)
        self.enforcement.reconcile()
        self.endpoints = Endpoints(
            local=local,
            netlink=self.kernel,
            dataplane=self.dataplane,
            store=self.store,
            publication=Publication(local, self.kv, self.session),
            enforcement=self.enforcement,
            ownership=self.ownership,
            spawn=self._spawn,
            namespace_labels=self._namespace_labels,
        )

    async def prove(self) -> None:
        for block in POD_CIDRS:
            key = schema.pod_cidr_allocation(block.network)
            await self.kv.put(key, codec.encode_pod_cidr(block))
        await self.ownership.prove()

    def _namespace_labels(self, namespace: str) -> dict[str, str] | None:
        return None if self.namespaces is None else self.namespaces.get(namespace, {})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def settled(self) -> None:
        """Every watch of an owner that has ended is through."""
        async with asyncio.timeout(5):
            await asyncio.gather(*self.tasks)

    async def traces(self) -> dict[str, object]:
        """All that an endpoint leaves anywhere; empty when there is none."""
        keys = (await self.kv.list("")).pairs
        lasting = (schema.POD_CIDR_ALLOCATIONS, schema.IDENTITY_ALLOCATIONS, schema.IDENTITIES)
        found = {
            "links": list(self.kernel.links),
            "routes": list(self.kernel.routes),
            "namespaces": sorted(self.kernel.netns),
            "rows": self.dataplane.endpoints(),
            "files": self.store.load(),
            "keys": [pair.key for pair in keys if not pair.key.startswith(lasting)],
            "named": sorted(self.session.keys),
            "listed": self.endpoints.list(),
        }
        return {name: left for name, left in found.items() if left}


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is ended."""
    running = subprocess.Popen(["sleep", "60"])
    try:
        yield running
    finally:
        running.kill()
        running.wait()
