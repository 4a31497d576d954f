"""A server that speaks etcd's Range and Watch, and says whatever a test wants it to say.

What a hostile cluster has in place of a gateway: no etcd would ever answer so.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import attrs
import etcd3.etcdrpc as pb
import grpc
import grpc.aio
from etcd3.etcdrpc import kv_pb2

from meshnet.kvstore.etcd import EtcdKV

Answer = Callable[[Any], Any]
HEADER = pb.ResponseHeader(cluster_id=7, revision=100)


def pairs(keys: Mapping[str, bytes]) -> list[Any]:
    return [
        kv_pb2.KeyValue(key=key.encode(), value=value, mod_revision=50, create_revision=50)
        for key, value in sorted(keys.items())
    ]


@attrs.define
class Impostor:
    """Answers honestly out of `keys`, but where `lists` or `watches` has another answer.

    Both are by how the range that is asked for begins.
    """

    keys: dict[str, bytes]
    lists: dict[str, Answer] = attrs.field(factory=dict)
    """-> a RangeResponse from the RangeRequest."""
    watches: dict[str, list[Any]] = attrs.field(factory=dict)
    """-> WatchResponses after the one that says `created`, which etcd would not give."""
    port: int = 0
    server: Any = None

    async def start(self) -> None:
        ranges = grpc.unary_unary_rpc_method_handler(
            self.range, pb.RangeRequest.FromString, pb.RangeResponse.SerializeToString
        )
        watches = grpc.stream_stream_rpc_method_handler(
            self.watch, pb.WatchRequest.FromString, pb.WatchResponse.SerializeToString
        )
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("etcdserverpb.KV", {"Range": ranges}),
                grpc.method_handlers_generic_handler("etcdserverpb.Watch", {"Watch": watches}),
            )
        )
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop(None)

    async def restart(self) -> None:
        """Every call under way breaks off; the next ones are answered at the same place."""
        await self.stop()
        await self.start()

    async def range(self, request: Any, _: Any) -> Any:
        for start, lie in self.lists.items():
            if request.key.startswith(start.encode()):
                return lie(request)
        found = pairs(
            {
                key: value
                for key, value in self.keys.items()
                if key.encode() == request.key
                or (request.range_end and request.key <= key.encode() < request.range_end)
            }
        )
        return pb.RangeResponse(header=HEADER, kvs=found, count=len(found))

    async def watch(self, requests: Any, _: Any) -> AsyncIterator[Any]:
        number = 0
        async for request in requests:
            if not request.HasField("create_request"):
                continue
            yield pb.WatchResponse(header=HEADER, watch_id=number, created=True)
            for lie in self.watches.get(request.create_request.key.decode(), ()):
                said = pb.WatchResponse(header=HEADER, watch_id=number)
                said.MergeFrom(lie)
                yield said
            number += 1

    def kv(self) -> EtcdKV:
        return EtcdKV(
            [f"127.0.0.1:{self.port}"], None, server="gateway of west", largest_list=1 << 20
        )


@contextlib.asynccontextmanager
async def impostor(keys: Mapping[str, bytes]) -> AsyncIterator[Impostor]:
    made = Impostor(dict(keys))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
