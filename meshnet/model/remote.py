"""A remote: another cluster of the mesh, and how far we trust it."""

from __future__ import annotations

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
