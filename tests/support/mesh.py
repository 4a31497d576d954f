"""Clusters as their etcd shows them, and a way to wait for what a store comes to hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from ipaddress import ip_address, ip_network

from meshnet.errors import Compacted
from meshnet.kvstore.api import KV, Created, Put
from meshnet.mesh.boundaries import Boundaries
from meshnet.mesh.leadership import FencedWriter
from meshnet.mesh.mirror import Mirror
from meshnet.model.cluster import Cluster, ClusterConfig, default_pod_cidrs
from meshnet.model.endpoint import IpEntry
from meshnet.model.identity import Identity, endpoint_labels
from meshnet.model.node import Node
from meshnet.model.remote import MirrorStatus, Remote, RemoteState
from meshnet.registry import codec, schema

EAST = Cluster(name="east", id=1, pod_cidrs=default_pod_cidrs(1))
WEST = Remote(
    name="west",
    id=2,
    mesh_ca="",
    pod_cidrs=default_pod_cidrs(2),
    gateways=("172.20.0.3:4243",),
    state=RemoteState.COMMITTED,
)
WEB = (2 << 16) + 300

Keys = Mapping[str, bytes]


def node(number: int, *, cluster: str = "west", cluster_id: int = 2) -> Node:
    """Node `number` of a cluster, with a /24 of its PodCIDR."""
    block = ip_network(f"10.{cluster_id}.{number}.0/24")
    return Node(
        name=f"{cluster}-{number}",
        cluster=cluster,
        cluster_id=cluster_id,
        addresses=(ip_address(f"172.20.{cluster_id}.{number}"),),
        gateways=(block[1],),
        pod_cidrs=(block,),
    )


def entry(number: int, last: int, *, cluster_id: int = 2, identity: int = WEB) -> IpEntry:
    """The address of endpoint `last` on node `number`."""
    return IpEntry(
        prefix=ip_network(f"10.{cluster_id}.{number}.{last}/32"),
        host=ip_address(f"172.20.{cluster_id}.{number}"),
        identity=identity,
        name=f"web-{number}-{last}",
        namespace="shop",
        node=f"west-{number}",
        endpoint_id=last,
    )


def node_key(one: Node) -> tuple[str, bytes]:
    return schema.node(one.cluster, one.name), codec.encode_node(one)


def ip_key(one: IpEntry) -> tuple[str, bytes]:
    return schema.ip(one.prefix), codec.encode_ip_entry(one)


def identity_key(number: int = WEB, *, cluster: str = "west") -> tuple[str, bytes]:
    labels = endpoint_labels({"app": "web"}, namespace="shop", cluster=cluster)
    return schema.identity(number), codec.encode_identity(Identity(number, labels))


def introduction(cluster: str = "west", cluster_id: int = 2) -> dict[str, bytes]:
    """Cluster-config, heartbeat and canaries."""
    config = codec.encode_cluster_config(ClusterConfig(id=cluster_id))
    return {
        schema.HEARTBEAT: b"now",
        schema.cluster_config(cluster): config,
        **{schema.synced(cluster, prefix): b"now" for prefix in schema.CANARIED},
    }


def state(nodes: int, endpoints: int) -> dict[str, bytes]:
    """What cluster west exports with so many nodes, and so many endpoints on each."""
    return dict(
        [
            identity_key(),
            *(node_key(node(number)) for number in range(1, nodes + 1)),
            *(
                ip_key(entry(number, last))
                for number in range(1, nodes + 1)
                for last in range(2, 2 + endpoints)
            ),
        ]
    )


def shared_policy(name: str = "web", cluster: str = "west", **spec: object) -> tuple[str, bytes]:
    """A NetworkPolicy of a cluster, applied for the whole mesh."""
    document = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "annotations": {"meshnet.io/scope": "mesh"},
        },
        "spec": {"podSelector": {}, **spec},
    }
    key = f"meshnet/v1/shared/manifests/{cluster}/networkpolicy/shop/{name}"
    return key, json.dumps(document).encode()


def as_mirrored(keys: Keys) -> dict[str, bytes]:
    """The same keys where a mirror puts them. Independent of the mirror's own tables."""
    prefixes = {
        "cilium/state/nodes/v1/west/": "cilium/cache/nodes/v1/west/",
        "cilium/state/ip/v1/default/": "cilium/cache/ip/v1/west/",
        "cilium/state/identities/v1/id/": "cilium/cache/identities/v1/west/id/",
        "cilium/state/services/v1/west/": "cilium/cache/services/v1/west/",
        "meshnet/v1/shared/manifests/west/": "meshnet/v1/cache/manifests/west/",
    }
    return {
        cached + key.removeprefix(exported): value
        for key, value in keys.items()
        for exported, cached in prefixes.items()
        if key.startswith(exported)
    }


async def put_all(kv: KV, keys: Keys) -> None:
    puts = [Put(key, value) for key, value in keys.items()]
    for start in range(0, len(puts), 100):
        await kv.txn((), puts[start : start + 100])


async def contents(kv: KV, prefix: str) -> dict[str, bytes]:
    return {pair.key: pair.value for pair in (await kv.list(prefix)).pairs}


async def until(
    kv: KV, prefix: str, holds: Callable[[dict[str, bytes]], bool], *, timeout: float = 10
) -> dict[str, bytes]:
    """Wait, without polling, until what is under `prefix` satisfies `holds`."""
    found: dict[str, bytes] = {}
    try:
        async with asyncio.timeout(timeout):
            while True:
                listing = await kv.list(prefix)
                found = {pair.key: pair.value for pair in listing.pairs}
                if holds(found):
                    return found
                watch = kv.watch(prefix, after=listing.revision, store=listing.store)
                async with contextlib.aclosing(watch) as batches:
                    with contextlib.suppress(Compacted):
                        await anext(batches)
    except TimeoutError:
        raise AssertionError(f"{prefix} never came to be so; it holds {found}") from None


async def status_when(
    kv: KV, holds: Callable[[MirrorStatus], bool], *, cluster: str = "west", timeout: float = 10
) -> MirrorStatus:
    """The published status of a mirror once it satisfies `holds`."""
    key = schema.mesh_status(cluster)

    def fits(found: dict[str, bytes]) -> bool:
        return key in found and holds(codec.decode_mirror_status(key, found[key]))

    found = await until(kv, key, fits, timeout=timeout)
    return codec.decode_mirror_status(key, found[key])


async def lead(kv: KV, node: str = "east-1") -> FencedWriter:
    """Become the leader, without anybody to keep the lease alive."""
    lease = await kv.grant(60)
    put = Put(schema.LEADER, node.encode(), lease)
    result = await kv.txn((Created(schema.LEADER),), (put,))
    assert result.succeeded, "somebody leads already"
    return FencedWriter(kv, result.revision, lease)


class Borrowed:
    """A store that its user may close without closing it for the test."""

    def __init__(self, kv: KV) -> None:
        self._kv = kv

    def __getattr__(self, name: str) -> object:
        return getattr(self._kv, name)

    async def close(self) -> None:
        """Nothing: the test owns the store."""


@contextlib.asynccontextmanager
async def mirroring(
    ours: KV, writer: FencedWriter, open_remote: Callable[[Remote], KV], **options: float
) -> AsyncIterator[Mirror]:
    """A mirror of WEST into EAST's store, running."""
    boundaries = Boundaries(EAST)
    boundaries.remotes({WEST.name: WEST})
    boundaries.own_nodes([node(1, cluster="east", cluster_id=1)])
    mirror = Mirror(WEST, ours, writer, boundaries, open_remote, **{"publish_s": 0.05, **options})
    task = asyncio.create_task(mirror.run())
    try:
        yield mirror
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
