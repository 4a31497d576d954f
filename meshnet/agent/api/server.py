"""The local API's transport: HTTP/1.1 and JSON on a UNIX socket, by h11.

Who may call is decided here, before any handler runs: the socket is root:meshnet 0660, so
the group may read; changes need uid 0, told by SO_PEERCRED (socket(7)).
"""

from __future__ import annotations

import asyncio
import grp
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
import cattrs
import h11
import structlog

from meshnet.errors import (
    AlreadyExists,
    ConfigError,
    MeshnetError,
    NotFound,
    PermissionRefused,
    Unreachable,
    UsageError,
)

GROUP = "meshnet"
MAX_BODY = 1 << 20
"""Bytes; the largest request is a manifest."""

T = TypeVar("T")

_log = structlog.get_logger()
_converter = cattrs.Converter(forbid_extra_keys=True)


@attrs.frozen
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    """Decoded JSON, None without a body."""
    params: dict[str, str] = attrs.field(factory=dict)
    """The `{name}` parts of the route's path."""

    def field(self, name: str) -> Any:
        """A required field of the body."""
        if not isinstance(self.body, Mapping) or name not in self.body:
            raise UsageError(f"{self.method} {self.path}: field {name!r} is missing in the body")
        return self.body[name]

    def structured(self, shape: type[T]) -> T:
        """The body as an object of ours. Raises UsageError that names every fault."""
        if not isinstance(self.body, dict):
            raise UsageError(f"{self.method} {self.path}: the body is no JSON object")
        try:
            return _converter.structure(self.body, shape)
        except cattrs.BaseValidationError as error:
            faults = "; ".join(cattrs.transform_error(error, path="body"))
            raise UsageError(f"{self.method} {self.path}: {faults}") from error

    def optional(self, name: str, default: Any = None) -> Any:
        return self.body.get(name, default) if isinstance(self.body, Mapping) else default


Handler = Callable[[Request], Awaitable[Any]]


@attrs.frozen
class Route:
    method: str
    path: str
    """Segments; `{name}` matches one and becomes `params[name]`."""
    handler: Handler

    def match(self, method: str, path: str) -> dict[str, str] | None:
        ours, theirs = self.path.split("/"), path.split("/")
        if method != self.method or len(ours) != len(theirs):
            return None
        params: dict[str, str] = {}
        for pattern, segment in zip(ours, theirs, strict=True):
            if pattern.startswith("{"):
                params[pattern[1:-1]] = unquote(segment)
            elif pattern != segment:
                return None
        return params


class ApiServer:
    """Serves `routes` on `path` until cancelled."""

    def __init__(self, path: Path, routes: list[Route]) -> None:
        self._path = path
        self._routes = routes

    async def run(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, self._path)
        os.chmod(self._path, 0o660)
        try:
            os.chown(self._path, 0, grp.getgrnam(GROUP).gr_gid)
        except KeyError:
            os.chown(self._path, 0, 0)  # no such group on this host: root alone
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while await self._serve_one(connection, reader, writer):
                connection.start_next_cycle()
        except (h11.RemoteProtocolError, ConnectionError):
            pass  # the caller spoke no HTTP or went away: its loss alone
        finally:
            writer.close()

    async def _serve_one(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """One request and its response. False when the connection is over."""
        head, body = await _receive(connection, reader)
        if head is None:
            return False
        status, answer = await self._answer(head, body, _peer_uid(writer))
        payload = json.dumps(answer, default=_plain).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(payload)))]
        for event in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=payload),
            h11.EndOfMessage(),
        ):
            writer.write(connection.send(event) or b"")
        await writer.drain()
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _answer(self, head: h11.Request, body: bytes, uid: int) -> tuple[int, Any]:
        method, url = head.method.decode(), urlsplit(head.target.decode())
        try:
            route, params = self._find(method, url.path)
            if method != "GET" and uid != 0:
                raise PermissionRefused(f"{method} {url.path} changes this node: run it as root")
            request = Request(method, url.path, dict(parse_qsl(url.query)), _decode(body), params)
            return 200, await route.handler(request)
        except MeshnetError as error:
            return _status_of(error), _error_body(error)
        except Exception:
            _log.exception("request failed", path=url.path)
            failure = MeshnetError(f"{method} {url.path} failed inside the agent; see its log")
            return 500, _error_body(failure)

    def _find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        for route in self._routes:
            params = route.match(method, path)
            if params is not None:
                return route, params
        raise NotFound(f"the agent has no {method} {path}; is it older than this command?")


async def _receive(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> tuple[h11.Request | None, bytes]:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise h11.RemoteProtocolError("body too large")
        elif isinstance(event, h11.EndOfMessage):
            return head, bytes(body)
        else:
            return None, b""


def _plain(value: object) -> str:
    """What JSON has no form for: times in RFC 3339, addresses and the rest as text."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    """The caller's uid, which the kernel vouches for."""
    peer = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return int(uid)


def _decode(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError as error:
        raise UsageError(f"the request's body is not JSON: {error}") from error


def _status_of(error: MeshnetError) -> int:
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, AlreadyExists):
        return 409
    if isinstance(error, PermissionRefused):
        return 403
    if isinstance(error, UsageError | ConfigError):
        return 400
    return 503 if error.transient else 500


def _error_body(error: MeshnetError) -> dict[str, Any]:
    told: dict[str, Any] = {
        "type": type(error).__name__,
        "message": str(error),
        "exit_code": error.exit_code,
    }
    if isinstance(error, Unreachable) and error.own_etcd:
        told["own_etcd"] = True
    return {"error": told}
