"""A remote: another cluster of the mesh, and how far we trust it."""

from __future__ import annotations

import datetime
import enum

import attrs

from meshnet.model.addressing import Prefix


class RemoteState(enum.StrEnum):
    """A join is pending until both sides reached each other, then committed."""

    PENDING = "pending"
    COMMITTED = "committed"


@attrs.frozen(kw_only=True)
class Remote:
    """`meshnet/v1/remotes/<cluster>`: pinned at join, never widened by the remote itself."""

    name: str
    id: int
    mesh_ca: str
    """PEM. The gateway verifies this cluster's certificates against exactly this CA."""
    pod_cidrs: tuple[Prefix, ...]
    gateways: tuple[str, ...]
    """`host:port` of its gateways."""
    state: RemoteState = RemoteState.PENDING
    kind: str = "meshnet"
    """`meshnet`, or `cilium` for a clustermesh-apiserver."""


@attrs.frozen
class RefusedKey:
    """A key of a remote that is not believed, and why."""

    key: str
    reason: str


@attrs.frozen(kw_only=True)
class MirrorStatus:
    """`meshnet/v1/mesh-status/<cluster>`: how the leader's mirror of a remote is doing.

    Under the leader's lease: without a leader there is no mirror, and none to report of.
    """

    name: str
    id: int
    connected: bool = False
    ready: bool = False
    """Connected, and all that the remote exports was copied in full."""
    nodes: int = 0
    identities: int = 0
    endpoints: int = 0
    services: int = 0
    last_event_at: datetime.datetime | None = None
    """When the remote last said anything new."""
    reconnects: int = 0
    error: str | None = None
    """Why it is not connected, or not ready, in one line."""
    refused: int = 0
    """How many of its keys are not believed."""
    refusals: tuple[RefusedKey, ...] = ()
    """The first of them, by key."""
