"""The agent's local API, as the command line calls it: HTTP over a UNIX socket.

A refusal of the agent is raised here as the very class it was raised as there, so that
message and exit code reach the operator unchanged.
"""

from __future__ import annotations

import json
import socket
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from meshnet import errors
from meshnet.cli import console
from meshnet.config import Paths
from meshnet.errors import AgentUnreachable, CapabilityMissing, MeshnetError, Unreachable

QUICK_S = 10.0
"""For answers from memory."""
LONG_S = 120.0
"""For what waits on other nodes: an endpoint that becomes ready, a join, a drain."""
PATIENCE_S = 30.0
"""With the cluster's own etcd, which is started again when it shall trust other CAs or
refuse other certificates. A request that fails for it is repeated: what must not begin twice
rides over it inside the agent (meshnet/kvstore/patience.py) or fails in another way."""
AGAIN_S = 0.5
TELL_EVERY_S = 5.0


class AgentClient:
    """Calls of one node's agent, a connection each. Args: `patient` rides over etcd's restart."""

    def __init__(self, paths: Paths, *, patient: bool = True) -> None:
        self._paths = paths
        self._patient = patient

    def get(self, *path: str | int, timeout_s: float = QUICK_S, **query: str) -> Any:
        return self._call("GET", path, query=query, timeout_s=timeout_s)

    def post(self, *path: str | int, body: object, timeout_s: float = LONG_S) -> Any:
        return self._call("POST", path, body=body, timeout_s=timeout_s)

    def patch(self, *path: str | int, body: object, timeout_s: float = QUICK_S) -> Any:
        return self._call("PATCH", path, body=body, timeout_s=timeout_s)

    def delete(self, *path: str | int, timeout_s: float = LONG_S, **query: str) -> Any:
        return self._call("DELETE", path, query=query, timeout_s=timeout_s)

    def _call(
        self,
        method: str,
        path: tuple[str | int, ...],
        *,
        timeout_s: float,
        query: dict[str, str] | None = None,
        body: object = None,
    ) -> Any:
        """Raises Unreachable when etcd is away for longer than PATIENCE_S."""
        began, told = time.monotonic(), -TELL_EVERY_S
        while True:
            try:
                return self._ask(method, path, timeout_s=timeout_s, query=query, body=body)
            except Unreachable as error:
                waited = time.monotonic() - began
                if not (error.own_etcd and self._patient) or waited >= PATIENCE_S:
                    raise
                if waited - told >= TELL_EVERY_S:
                    console.progress(f"{error}: trying again ({waited:.0f} of {PATIENCE_S:g} s)")
                    told = waited
            time.sleep(AGAIN_S)

    def _ask(
        self,
        method: str,
        path: tuple[str | int, ...],
        *,
        timeout_s: float,
        query: dict[str, str] | None,
        body: object,
    ) -> Any:
        target = "/v1/" + "/".join(quote(str(part), safe="") for part in path)
        if query:
            target += "?" + urlencode(query)
        connection = _UnixConnection(self._paths.socket, timeout_s)
        try:
            connection.request(
                method,
                target,
                body=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            )
            response = connection.getresponse()
            raw = response.read()
        except TimeoutError as error:
            raise AgentUnreachable(
                f"the agent did not answer {method} {target} within {timeout_s:g} s: "
                "see its log, then restart it"
            ) from error
        except (OSError, HTTPException) as error:
            raise _unreachable(self._paths, error) from error
        finally:
            connection.close()
        return _decode(method, target, response.status, raw)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("meshnet", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _unreachable(paths: Paths, error: Exception) -> MeshnetError:
    """Why nobody answers, told apart by what an operator would do next."""
    if isinstance(error, PermissionError):
        return CapabilityMissing(
            f"{paths.socket} may not be opened by this user: run as root, or join the group "
            "'meshnet' to read"
        )
    if not paths.config.exists():
        return AgentUnreachable(
            f"this node is in no cluster ({paths.config} does not exist): run "
            "`meshnet cluster init NAME` or `meshnet cluster join TOKEN`"
        )
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return AgentUnreachable(
            f"no agent answers on {paths.socket}: start it with `systemctl start meshnet`, or "
            "`meshnet agent` where there is no systemd"
        )
    return AgentUnreachable(
        f"the agent on {paths.socket} broke off ({error or type(error).__name__}): see its log"
    )


def _decode(method: str, target: str, status: int, raw: bytes) -> Any:
    try:
        answer: Any = json.loads(raw) if raw else None
        if 200 <= status < 300:
            return answer
        told = answer["error"]
        refusal = _refusal(
            told["type"], told["message"], told["exit_code"], own_etcd=told.get("own_etcd", False)
        )
    except (ValueError, TypeError, KeyError) as error:
        raise AgentUnreachable(
            f"what answers {method} {target} is no agent of this version (HTTP {status}): "
            "restart the agent"
        ) from error
    raise refusal


def _refusal(name: str, message: str, exit_code: int, *, own_etcd: bool) -> MeshnetError:
    """The agent's exception again: its class where we know it, its message, its exit code."""
    kind = getattr(errors, "Unreachable" if own_etcd else name, None)
    if not (isinstance(kind, type) and issubclass(kind, MeshnetError)):
        kind = MeshnetError
    # some classes build their message from parts; here it is already built
    refusal: MeshnetError = kind.__new__(kind, message)
    refusal.exit_code = exit_code
    if isinstance(refusal, Unreachable):
        refusal.own_etcd = own_etcd
    return refusal
