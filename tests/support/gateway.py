"""A gateway of cluster `east` over a real etcd, and remotes that call it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

import attrs
import grpc
import pytest

from meshnet.gateway.server import Gateway
from meshnet.kvstore.channel import Connections
from meshnet.kvstore.etcd import EtcdKV
from meshnet.pki.certificate import Profile
from tests.support.etcd import EtcdProcess, etcd
from tests.support.trust import RawClient, TrustedCluster

IPS = b"cilium/state/ip/v1/default/"
IPS_END = b"cilium/state/ip/v1/default0"
KEY = IPS + b"10.1.0.5"
SECRET = b"meshnet/v1/tokens/secret"


@attrs.frozen
class Clusters:
    east: TrustedCluster
    west: TrustedCluster
    north: TrustedCluster
    etcd: EtcdProcess


@attrs.frozen
class Scene:
    """The gateway of `east`, which knows `west` (and not `north`)."""

    clusters: Clusters
    gateway: Gateway
    endpoint: str
    kv: EtcdKV
    """The cluster's own way to its etcd."""

    @contextlib.asynccontextmanager
    async def client(self, cluster: TrustedCluster) -> AsyncIterator[RawClient]:
        client = RawClient(self.endpoint, cluster.mirror_tls(self.clusters.east))
        async with client.channel:
            yield client


@contextlib.contextmanager
def clusters_with_etcd(directory: Path) -> Iterator[Clusters]:
    """Three clusters that trust themselves alone, and the etcd of `east`."""
    names = ("east", "west", "north")
    east, west, north = (
        TrustedCluster.create(directory, name, number) for number, name in enumerate(names, 1)
    )
    with etcd(directory / "etcd", east.etcd_tls()) as process:
        yield Clusters(east, west, north, process)


@contextlib.asynccontextmanager
async def serving(clusters: Clusters) -> AsyncIterator[Scene]:
    """A gateway that knows `west`, some keys in etcd, fresh certificates."""
    for cluster in (clusters.east, clusters.west, clusters.north):
        cluster.enrol(Profile.MIRROR)
    kv = clusters.etcd.kv()
    for key in (KEY, SECRET, b"cilium/.heartbeat", b"cilium/cluster-config/east"):
        await kv.put(key.decode(), b"value of " + key)
    connections = Connections([clusters.etcd.endpoint], clusters.east.etcd_tls(), server="etcd")
    gateway = Gateway("east", clusters.east.pki, connections)
    gateway.set_remotes([clusters.west.remote()])
    (port,) = await gateway.start(["127.0.0.1:0"])
    try:
        yield Scene(clusters, gateway, f"127.0.0.1:{port}", kv)
    finally:
        await gateway.stop()
        await connections.close()
        await kv.close()


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async with asyncio.timeout(10):
            await call
    return error.value.code(), error.value.details() or ""
