"""gRPC channels to etcd: mutual TLS, several endpoints, renewed certificates, plain words
for what went wrong.

Python's gRPC reads a certificate once per channel, so a renewed file means a new channel;
the old one is closed when its last call is done.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import etcd3.etcdrpc as pb
import grpc

from meshnet.errors import (
    Compacted,
    ConfigError,
    Denied,
    LeaseLost,
    NotPermitted,
    RegistryError,
    Unreachable,
)

OWN_ETCD = "etcd"
"""What error messages call this cluster's own; all others are called by their cluster too."""
MAX_MESSAGE = 64 << 20
RELOAD_CHECK_S = 1.0

OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),  # etcd cuts clients that ping more often than every 5 s
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.http2.ping_timeout_ms", 4_000),  # without it a frozen server is not noticed for 60 s
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel inherits the old one's failure
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # the control plane does not go through a web proxy
)

REASONS = (
    ("CERTIFICATE_VERIFY_FAILED", "TLS verification failed: our CA did not sign its certificate"),
    ("Hostname Verification", "TLS verification failed: its certificate is for another address"),
    ("TSI_DATA_CORRUPTED", "it refused our client certificate"),
    ("create security handshaker", "our client certificate and its key do not fit together"),
    ("Connection refused", "connection refused: is it running?"),
    ("lookup failed", "no such host"),
    ("no leader", "it has no leader, its quorum is lost"),
    ("Socket closed", "it closed the connection"),
    ("ping timeout", "it froze: no answer to a ping"),
)
"""What gRPC's details contain -> what it means."""


class TooLarge(Denied):
    """An answer longer than MAX_MESSAGE: ask for less at a time."""


class NeverSent(Unreachable):
    """No connection came about, so the request certainly had no effect."""


@attrs.frozen(kw_only=True)
class ClientTls:
    """PEM, or files of it; files are read again when they change."""

    ca: bytes | Path
    cert: bytes | Path
    key: bytes | Path
    names: Mapping[str, str] = attrs.field(factory=dict)
    """Endpoint -> the name its certificate must have; else that is its host."""

    def credentials(self) -> Any:
        """Raises ConfigError for a file that cannot be read."""
        ca, cert, key = (self._read(part) for part in (self.ca, self.cert, self.key))
        return grpc.ssl_channel_credentials(ca, key, cert)

    def stamp(self) -> tuple[int, ...]:
        """Differs after a file was replaced. A file that is missing for a moment is no change."""
        with contextlib.suppress(OSError):
            paths = (part for part in (self.ca, self.cert, self.key) if isinstance(part, Path))
            return tuple(path.stat().st_mtime_ns for path in paths)
        return ()

    @staticmethod
    def _read(part: bytes | Path) -> bytes:
        if isinstance(part, bytes):
            return part
        try:
            return part.read_bytes()
        except OSError as error:
            raise ConfigError(f"{part} cannot be read: {error.strerror}") from error


class Connection:
    """One channel to one endpoint, and who still uses it."""

    def __init__(self, endpoint: str, channel: Any) -> None:
        self.endpoint = endpoint
        self.channel = channel
        self.kv = pb.KVStub(channel)
        self.lease = pb.LeaseStub(channel)
        self.watch = pb.WatchStub(channel)
        self.users = 0
        self.retired = False
        """Another one has taken its place: long calls move over, the last one closes it."""


class Connections:
    """Gives out one connection at a time, to the endpoint that answered last."""

    def __init__(self, endpoints: Sequence[str], tls: ClientTls | None, *, server: str) -> None:
        if not endpoints:
            raise ConfigError(f"no endpoint is given for {server}")
        self.endpoints = tuple(endpoints)
        self._tls = tls
        self.server = server
        self._index = 0
        self._current: Connection | None = None
        self._unused: list[Connection] = []
        self._stamp: tuple[int, ...] = ()
        self._checked_at = 0.0

    @contextlib.asynccontextmanager
    async def borrow(self) -> AsyncIterator[Connection]:
        """The current connection; it stays open until given back, even if replaced."""
        if self._current is not None and self._renewed():
            self._retire(self._current)
        while self._unused:
            await self._unused.pop().channel.close()
        if self._current is None:
            self._current = self._dial(self.endpoints[self._index])
        connection = self._current
        connection.users += 1
        try:
            yield connection
        finally:
            connection.users -= 1
            if connection.retired and not connection.users:
                await connection.channel.close()

    def failed(self, connection: Connection) -> None:
        """Turn to the next endpoint, unless somebody else did already."""
        if connection is self._current:
            self._index = (self._index + 1) % len(self.endpoints)
            self._retire(connection)

    async def close(self) -> None:
        if self._current is not None:
            self._unused.append(self._current)
            self._current = None
        while self._unused:
            await self._unused.pop().channel.close()

    def translate(self, connection: Connection, error: grpc.aio.AioRpcError) -> RegistryError:
        """gRPC's error as ours, with the endpoint and the reason."""
        code, details = error.code(), error.details() or ""
        where = f"{self.server} at {connection.endpoint}"
        match code:
            case grpc.StatusCode.NOT_FOUND if "lease" in details:
                return LeaseLost("the lease is gone: put its keys again under a new one")
            case grpc.StatusCode.OUT_OF_RANGE:
                return Compacted(f"{where}: {details}: list again")
            case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in details:
                return TooLarge(f"{where}: an answer is over {MAX_MESSAGE >> 20} MiB")
            case grpc.StatusCode.PERMISSION_DENIED:
                return NotPermitted(f"{where} refused: {details.removeprefix('etcdserver: ')}")
            case (
                grpc.StatusCode.UNAUTHENTICATED
                | grpc.StatusCode.UNIMPLEMENTED
                | grpc.StatusCode.INVALID_ARGUMENT
                | grpc.StatusCode.FAILED_PRECONDITION
                | grpc.StatusCode.RESOURCE_EXHAUSTED
            ):
                return Denied(f"{where} refused: {details.removeprefix('etcdserver: ')}")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return self.unreachable(connection, "no answer in time")
        reason = next((meaning for text, meaning in REASONS if text in details), details)
        never = details.startswith(("failed to connect", "errors resolving"))
        return self.unreachable(connection, reason, NeverSent if never else Unreachable)

    def unreachable(
        self, connection: Connection, reason: str, kind: type[Unreachable] = Unreachable
    ) -> Unreachable:
        error = kind(f"{self.server} at {connection.endpoint} is unreachable: {reason}")
        error.own_etcd = self.server == OWN_ETCD
        return error

    def _dial(self, endpoint: str) -> Connection:
        if self._tls is None:
            return Connection(endpoint, grpc.aio.insecure_channel(endpoint, OPTIONS))
        self._stamp = self._tls.stamp()
        credentials = self._tls.credentials()
        name = self._tls.names.get(endpoint)
        options = (*OPTIONS, ("grpc.ssl_target_name_override", name)) if name else OPTIONS
        return Connection(endpoint, grpc.aio.secure_channel(endpoint, credentials, options))

    def _renewed(self) -> bool:
        now = time.monotonic()
        if self._tls is None or now - self._checked_at < RELOAD_CHECK_S:
            return False
        self._checked_at = now
        return self._tls.stamp() not in ((), self._stamp)

    def _retire(self, connection: Connection) -> None:
        """Its last user closes it; if there is none, the next `borrow` does."""
        connection.retired = True
        self._current = None
        if not connection.users:
            self._unused.append(connection)
