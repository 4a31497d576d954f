"""A client that says nothing but HTTP/2 pings every 15 s, as Cilium's do. Runs in a lab host.

python tests/support/idle_reader.py CLUSTER GATEWAY

Connects to a gateway of CLUSTER as this node's mirror, says `ready`, and is idle until its stdin
ends. Then it asks for one key over the same connection and prints, as JSON, how many seconds it
was idle, the states that the connection has been in, and how many keys it was answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import grpc
from etcd3 import etcdrpc

from meshnet import config
from meshnet.bootstrap.init import open_etcd
from meshnet.config import Paths
from meshnet.pki.certificate import Profile
from meshnet.pki.store import PkiStore
from meshnet.registry.store import get_remote

PINGS = (
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 25_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


async def authority_of(cluster: str) -> bytes:
    """The mesh CA that was pinned for it."""
    async with open_etcd(config.load(Paths.from_environment()).etcd) as kv:
        remote = await get_remote(kv, cluster)
        assert remote is not None
        return remote.item.mesh_ca.encode()


def main(cluster: str, gateway: str) -> None:
    certificate, key = PkiStore(Paths.from_environment().pki).pair(Profile.MIRROR)
    credentials = grpc.ssl_channel_credentials(asyncio.run(authority_of(cluster)), key, certificate)
    states: list[str] = []
    with grpc.secure_channel(gateway, credentials, PINGS) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        channel.subscribe(lambda state: states.append(state.name))
        began = time.monotonic()
        print("ready", flush=True)
        sys.stdin.read()
        idle_s = time.monotonic() - began
        request = etcdrpc.RangeRequest(key=f"cilium/cluster-config/{cluster}".encode())
        answer = etcdrpc.KVStub(channel).Range(request, timeout=10)
        print(json.dumps({"idle_s": idle_s, "states": states, "keys": answer.count}))


if __name__ == "__main__":
    main(*sys.argv[1:])
