"""The mesh gateway: etcd's Range and Watch, read-only, for the mirrors of other clusters.

Every agent serves one (4243/tcp, mTLS). It speaks etcd's own protocol, so our mirror and
Cilium's kvstoremesh read a cluster through it unchanged. Whatever is not a Range or a
Watch has no handler here and is answered UNIMPLEMENTED by grpc.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

import grpc
import grpc.aio
import structlog
from etcd3 import etcdrpc

from meshnet.errors import ConfigError, PermissionRefused, Refused
from meshnet.gateway.callers import Caller, Callers
from meshnet.gateway.filter import Exports
from meshnet.gateway.relay import WatchRelay
from meshnet.kvstore.channel import Connection, Connections
from meshnet.model.remote import Remote
from meshnet.pki.certificate import Authority, Profile
from meshnet.pki.store import PkiStore
from meshnet.registry import schema

MAX_STREAMS = 4
"""Watch streams of one remote at one time."""
MAX_WATCHES = 16
"""Watches of one remote, over all its streams. A mirror needs six."""
MAX_RANGES = 16
"""Ranges of one remote that etcd has not answered yet. Mirrors read a prefix page by page."""
RANGE_TIMEOUT_S = 5.0

_OPTIONS = (
    # Cilium pings every 15 s; grpc's default ends such a connection: too_many_pings
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 << 10),
    # a second agent on the port must fail, not share it silently
    ("grpc.so_reuseport", 0),
)


class Gateway:
    """One node's gateway. `set_remotes` may be called before and after `start`."""

    def __init__(self, cluster: str, pki: PkiStore, etcd: Connections) -> None:
        self._cluster = cluster
        self._pki = pki
        self._etcd = etcd
        self._exports = Exports.of(cluster)
        self._callers = Callers(cluster, lambda: pki.authorities(Authority.MESH))
        self._relays: dict[str, set[WatchRelay]] = defaultdict(set)
        self._ranges: Counter[str] = Counter()
        self._server: grpc.aio.Server | None = None
        self._log = structlog.get_logger(component="gateway")

    async def start(self, addresses: Iterable[str]) -> tuple[int, ...]:
        """Listen on each `host:port` (port 0: any) and answer the ports. Raises ConfigError."""
        handlers = {
            "Range": grpc.unary_unary_rpc_method_handler(
                self._range,
                etcdrpc.RangeRequest.FromString,
                etcdrpc.RangeResponse.SerializeToString,
            )
        }
        watch = grpc.stream_stream_rpc_method_handler(
            self._watch,
            etcdrpc.WatchRequest.FromString,
            etcdrpc.WatchResponse.SerializeToString,
        )
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("etcdserverpb.KV", handlers),
                grpc.method_handlers_generic_handler("etcdserverpb.Watch", {"Watch": watch}),
            )
        )
        credentials = grpc.dynamic_ssl_server_credentials(
            self._tls(), self._tls, require_client_authentication=True
        )
        try:
            ports = tuple(self._server.add_secure_port(each, credentials) for each in addresses)
        except RuntimeError as error:
            raise ConfigError(
                f"mesh gateway cannot listen: {error}: does another agent run?"
            ) from error
        await self._server.start()
        return ports

    async def stop(self) -> None:
        """Close every connection now; mirrors go to another node's gateway."""
        if self._server is not None:
            await self._server.stop(grace=None)

    def set_remotes(self, remotes: Iterable[Remote]) -> None:
        """Who may call from now on. Streams of a remote that went are cut at once."""
        for cluster in self._callers.replace(remotes):
            relays = self._relays.pop(cluster, set())
            self._log.info("remote may not call any more", remote=cluster, cut=len(relays))
            for relay in relays:
                relay.cut(f"cluster {cluster!r} left the mesh of cluster {self._cluster!r}")

    def unanswered(self, cluster: str) -> int:
        """How many of a remote's Ranges etcd has not answered yet."""
        return self._ranges[cluster]

    def _tls(self) -> grpc.ServerCertificateConfiguration:
        """Asked by grpc before every handshake: certificates and CAs are reloaded so."""
        certificate, key = self._pki.pair(Profile.GATEWAY)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], self._callers.bundle)

    async def _range(
        self, request: etcdrpc.RangeRequest, context: grpc.aio.ServicerContext
    ) -> etcdrpc.RangeResponse:
        caller = await self._admit(context)
        refusal = self._exports.refusal(request.key, request.range_end)
        if refusal is not None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"meshnet gateway: {refusal}")
        if self._ranges[caller.cluster] >= MAX_RANGES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"meshnet gateway: cluster {caller.cluster!r} has {MAX_RANGES} ranges unanswered",
            )
        request.DiscardUnknownFields()
        self._ranges[caller.cluster] += 1
        try:
            async with self._etcd.borrow() as connection:
                return await self._ask(request, connection, context)
        finally:
            self._ranges[caller.cluster] -= 1

    async def _ask(
        self,
        request: etcdrpc.RangeRequest,
        connection: Connection,
        context: grpc.aio.ServicerContext,
    ) -> etcdrpc.RangeResponse:
        try:
            return await connection.kv.Range(request, timeout=_timeout_s(context))
        except grpc.aio.AioRpcError as error:
            await self._pass_on(error, connection, context)
            raise

    async def _watch(self, _: object, context: grpc.aio.ServicerContext) -> None:
        async with self._etcd.borrow() as connection:
            # from here to the entry in `streams` nothing waits: who is removed is cut
            caller = await self._admit(context)
            streams = self._relays[caller.cluster]
            if len(streams) >= MAX_STREAMS:
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"meshnet gateway: cluster {caller.cluster!r} has {MAX_STREAMS} streams open",
                )
            call = connection.watch.Watch(metadata=_passed_on(context))
            relay = WatchRelay(
                exports=self._exports,
                room=lambda: self._room(caller.cluster),
                header=lambda: self._header(connection),
                downstream=context,
                upstream=call,
                eof=grpc.aio.EOF,
            )
            streams.add(relay)
            try:
                await self._relay(relay, caller, connection, context)
            finally:
                streams.discard(relay)
                call.cancel()

    async def _relay(
        self,
        relay: WatchRelay,
        caller: Caller,
        connection: Connection,
        context: grpc.aio.ServicerContext,
    ) -> None:
        """Run it, and turn the way it ended into a gRPC status."""
        failures: list[Exception] = []
        left_s = (caller.not_after - datetime.now(UTC)).total_seconds()
        expiry = asyncio.get_running_loop().call_later(
            left_s, relay.cut, f"certificate of cluster {caller.cluster!r} expired"
        )
        try:
            await relay.run()
        except* (PermissionRefused, grpc.aio.AioRpcError) as group:
            failures.extend(group.exceptions)
        finally:
            expiry.cancel()
        for failure in failures:
            if isinstance(failure, grpc.aio.AioRpcError):
                await self._pass_on(failure, connection, context)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"meshnet gateway: {failure}")

    async def _admit(self, context: grpc.aio.ServicerContext) -> Caller:
        seen = context.auth_context().get("x509_pem_cert", [None])[0]
        try:
            return self._callers.admit(seen)
        except Refused as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"meshnet gateway: {error}")
            raise

    def _room(self, cluster: str) -> str | None:
        held = sum(relay.watches for relay in self._relays[cluster])
        if held < MAX_WATCHES:
            return None
        return f"cluster {cluster!r} has {MAX_WATCHES} watches open"

    async def _header(self, connection: Connection) -> etcdrpc.ResponseHeader:
        """etcd's own header: clients check the cluster id in every answer."""
        request = etcdrpc.RangeRequest(key=schema.HEARTBEAT.encode(), count_only=True)
        answer = await connection.kv.Range(request, timeout=RANGE_TIMEOUT_S)
        return answer.header

    async def _pass_on(
        self, error: grpc.aio.AioRpcError, connection: Connection, context: grpc.aio.ServicerContext
    ) -> None:
        """Answer the caller what etcd answered us. Raises: it ends the call."""
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            self._etcd.failed(connection)
        await context.abort(error.code(), error.details() or "")


def _timeout_s(context: grpc.aio.ServicerContext) -> float:
    left = context.time_remaining()
    return RANGE_TIMEOUT_S if left is None else min(left, RANGE_TIMEOUT_S)


def _passed_on(context: grpc.aio.ServicerContext) -> tuple[tuple[str, str], ...]:
    """`hasleader`: the client wants its stream ended when etcd loses its quorum."""
    metadata = context.invocation_metadata() or ()
    return tuple((key, value) for key, value in metadata if key == "hasleader")
