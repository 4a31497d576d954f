"""KV over etcd's gRPC, or over a mesh gateway, which speaks the reading half of it.

cslab-etcd3 is used for its generated stubs alone: its client forgets why a connection
failed and its watcher loses events.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import etcd3.etcdrpc as pb
import grpc

from meshnet.errors import Compacted, Denied, LeaseLost, Unreachable
from meshnet.kvstore.api import (
    MAX_OPERATIONS,
    Batch,
    Compare,
    Created,
    Deleted,
    KeyValue,
    Listing,
    Operation,
    Put,
    TxnResult,
    Unchanged,
    ValueIs,
)
from meshnet.kvstore.channel import (
    OWN_ETCD,
    ClientTls,
    Connection,
    Connections,
    NeverSent,
    TooLarge,
)
from meshnet.kvstore.watch import Moved, WatchStream

PAGE = 1000
RELISTS = 3
PROBE_KEY = "cilium/.heartbeat"
"""Asked for to learn the revision: a gateway lets everyone read it."""


class EtcdKV:
    """See `api.KV`. `endpoints` are `host:port`; the next one is tried when one fails.

    Args:
        tls: None only in tests.
        server: what error messages call the other side.
        timeout_s: of one request to one endpoint.
        largest_list: bytes of keys and values that one listing may have; more is Denied. For a
            server that is not trusted, which could otherwise fill our memory.
        sign_of_life_s: a watch whose server says nothing for so long is Unreachable.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        tls: ClientTls | None,
        *,
        server: str = OWN_ETCD,
        timeout_s: float = 4.0,
        sign_of_life_s: float = 10.0,
        largest_list: int | None = None,
    ) -> None:
        self._connections = Connections(endpoints, tls, server=server)
        self._timeout_s = timeout_s
        self._sign_of_life_s = sign_of_life_s
        self._largest_list = largest_list
        self._streams: dict[Connection, WatchStream] = {}

    # --- reading ---------------------------------------------------------------------------

    async def get(self, key: str) -> KeyValue | None:
        response = await self._ask("kv", "Range", pb.RangeRequest(key=_encode(key)))
        return next((_pair(kv) for kv in response.kvs if kv.key == _encode(key)), None)

    async def list(self, prefix: str) -> Listing:
        for attempt in itertools.count(1):
            try:
                return await self._list(prefix)
            except Compacted:  # between two pages
                if attempt == RELISTS:
                    raise
        raise AssertionError("unreachable")

    async def revision(self) -> int:
        request = pb.RangeRequest(key=_encode(PROBE_KEY), count_only=True)
        response = await self._ask("kv", "Range", request)
        return int(response.header.revision)

    async def watch(
        self, prefix: str, *, after: int, store: int = 0
    ) -> AsyncGenerator[Batch, None]:
        while True:
            async with self._connections.borrow() as connection:
                stream = self._stream(connection)
                try:
                    # One revision more than needed: etcd (3.4.23, seen) forgets a
                    # deletion made at the very revision of a compaction, and asking from that
                    # one still succeeds. Asking from before it does not.
                    request = pb.WatchCreateRequest(**_range(prefix), start_revision=max(after, 1))
                    async with stream.subscribe(request) as subscription:
                        while True:
                            response = await stream.receive(subscription)
                            self._check_answer(connection, response, prefix, after, store)
                            for batch in _batches(response.events, after):
                                after = batch.revision
                                yield batch
                except Moved:
                    continue
                except TooLarge as error:
                    raise Compacted(f"{error}: list again") from error
                except Unreachable:
                    self._connections.failed(connection)
                    raise
                finally:
                    if not stream.usable and self._streams.get(connection) is stream:
                        del self._streams[connection]

    # --- writing ---------------------------------------------------------------------------

    async def txn(self, compares: Sequence[Compare], then: Sequence[Operation]) -> TxnResult:
        if len(then) > MAX_OPERATIONS:
            raise Denied(f"{len(then)} operations in one transaction: {MAX_OPERATIONS} at most")
        request = pb.TxnRequest(
            compare=[_compare(compare) for compare in compares],
            success=[_operation(operation) for operation in then],
        )
        response = await self._ask("kv", "Txn", request, idempotent=False)
        return TxnResult(response.succeeded, response.header.revision)

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        request = pb.PutRequest(key=_encode(key), value=value, lease=lease)
        response = await self._ask("kv", "Put", request, idempotent=False)
        return int(response.header.revision)

    async def delete(self, key: str) -> bool:
        request = pb.DeleteRangeRequest(key=_encode(key))
        response = await self._ask("kv", "DeleteRange", request, idempotent=False)
        return bool(response.deleted)

    async def grant(self, ttl_s: int) -> int:
        response = await self._ask("lease", "LeaseGrant", pb.LeaseGrantRequest(TTL=ttl_s))
        return int(response.ID)

    async def keep_alive(self, lease: int) -> int:
        response = await self._ask("lease", "LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=lease))
        if response.TTL <= 0:
            raise LeaseLost("the lease is gone: put its keys again under a new one")
        return int(response.TTL)

    async def revoke(self, lease: int) -> None:
        try:
            await self._ask("lease", "LeaseRevoke", pb.LeaseRevokeRequest(ID=lease))
        except LeaseLost:
            return

    async def close(self) -> None:
        await self._connections.close()

    # --- inside ----------------------------------------------------------------------------

    async def _ask(self, stub: str, method: str, request: Any, *, idempotent: bool = True) -> Any:
        """One request, at each endpoint in turn until one answers.

        A write goes to another endpoint only if it was certainly never sent.
        """
        remaining = len(self._connections.endpoints)
        while True:
            remaining -= 1
            async with self._connections.borrow() as connection:
                try:
                    return await self._send(getattr(getattr(connection, stub), method), request)
                except grpc.aio.AioRpcError as error:
                    failure = self._connections.translate(connection, error)
                    if not isinstance(failure, Unreachable):
                        raise failure from error
                    self._connections.failed(connection)
                    if not remaining or not (idempotent or isinstance(failure, NeverSent)):
                        raise failure from error

    async def _send(self, method: Any, request: Any) -> Any:
        if not isinstance(method, grpc.aio.StreamStreamMultiCallable):
            return await method(request, timeout=self._timeout_s)
        call = method(iter((request,)), timeout=self._timeout_s)
        try:
            async for answer in call:
                return answer
            raise Unreachable("etcd ended the keep-alive without an answer")
        finally:
            call.cancel()

    async def _list(self, prefix: str) -> Listing:
        pairs: list[KeyValue] = []
        span = _range(prefix)
        revision, limit, size = 0, PAGE, 0
        while True:
            request = pb.RangeRequest(**span, limit=limit, revision=revision)
            try:
                response = await self._ask("kv", "Range", request)
            except TooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            revision = revision or response.header.revision
            size += self._check_page(prefix, span, response, size)
            pairs += (_pair(kv) for kv in response.kvs)
            if not response.more:
                return Listing(revision, tuple(pairs), response.header.cluster_id)
            span["key"] = response.kvs[-1].key + b"\0"

    def _check_page(self, prefix: str, span: dict[str, bytes], response: Any, before: int) -> int:
        """The page's bytes. Raises Denied for what no etcd answers: a remote's gateway may
        be anything, and must not lead us round in circles or past our own limits."""
        keys = [kv.key for kv in response.kvs]
        if not all(_covers(span, key) for key in keys) or (response.more and not keys):
            raise Denied(f"{self._connections.server} {_FOREIGN} list of {prefix}")
        size = sum(len(kv.key) + len(kv.value) for kv in response.kvs)
        if self._largest_list is not None and before + size > self._largest_list:
            raise Denied(
                f"{self._connections.server} has more than {self._largest_list >> 20} MiB under "
                f"{prefix}: too much to be read"
            )
        return size

    def _stream(self, connection: Connection) -> WatchStream:
        stream = self._streams.get(connection)
        if stream is None or not stream.usable:
            stream = WatchStream(connection, self._connections, sign_of_life_s=self._sign_of_life_s)
            self._streams[connection] = stream
        return stream

    def _check_answer(
        self, connection: Connection, response: Any, prefix: str, after: int, store: int
    ) -> None:
        where = f"watch of {prefix} at {connection.endpoint}"
        if response.compact_revision:
            raise Compacted(f"{where}: revision {after} was compacted away: list again")
        if response.canceled:
            if "compacted" in response.cancel_reason:
                raise Compacted(f"{where}: {response.cancel_reason}: list again")
            raise Denied(f"{where} refused: {response.cancel_reason.removeprefix('etcdserver: ')}")
        if not all(_covers(_range(prefix), event.kv.key) for event in response.events):
            raise Denied(f"{self._connections.server} {_FOREIGN} watch of {prefix}")
        if store and response.header.cluster_id != store:
            raise Compacted(f"{where}: another store answers: list again")
        if response.created and response.header.revision < after:
            raise Compacted(f"{where}: the store went back to an older state: list again")


_FOREIGN = "answered with keys that were not asked for:"


def _encode(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


def _decode(key: bytes) -> str:
    """A key that is not UTF-8 is somebody's mistake; it must not stop a listing."""
    return key.decode(errors="surrogateescape")


def _range(prefix: str) -> dict[str, bytes]:
    """A prefix ends with a slash; anything else is one key; empty is everything."""
    key = _encode(prefix)
    if not key:
        return {"key": b"\0", "range_end": b"\0"}
    return {"key": key, "range_end": key[:-1] + b"0"} if key.endswith(b"/") else {"key": key}


def _covers(span: dict[str, bytes], key: bytes) -> bool:
    """Whether a range as `_range` makes it has the key."""
    end = span.get("range_end")
    if end is None:
        return key == span["key"]
    return span["key"] <= key and (end == b"\0" or key < end)


def _pair(kv: Any) -> KeyValue:
    return KeyValue(_decode(kv.key), kv.value, kv.mod_revision, kv.create_revision, kv.lease)


def _batches(events: Any, after: int) -> list[Batch]:
    """Events of one answer by revision; etcd never splits a revision over two answers."""
    fresh = (event for event in events if event.kv.mod_revision > after)
    return [
        Batch(revision, tuple(_event(event) for event in group))
        for revision, group in itertools.groupby(fresh, lambda event: event.kv.mod_revision)
    ]


def _event(event: Any) -> KeyValue | Deleted:
    if event.type:
        return Deleted(_decode(event.kv.key), event.kv.mod_revision)
    return _pair(event.kv)


def _compare(compare: Compare) -> Any:
    key = _encode(compare.key)
    match compare:
        case Created(revision=revision):
            return pb.Compare(key=key, target=pb.Compare.CREATE, create_revision=revision)
        case Unchanged(revision=revision):
            return pb.Compare(key=key, target=pb.Compare.MOD, mod_revision=revision)
        case ValueIs(value=value):
            return pb.Compare(key=key, target=pb.Compare.VALUE, value=value)


def _operation(operation: Operation) -> Any:
    if isinstance(operation, Put):
        key = _encode(operation.key)
        return pb.RequestOp(
            request_put=pb.PutRequest(key=key, value=operation.value, lease=operation.lease)
        )
    span = _range(operation.key) if operation.prefix else {"key": _encode(operation.key)}
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(**span))
