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


class RemoteKind(enum.StrEnum):
    MESHNET = "meshnet"
    CILIUM = "cilium"
    """Read through its clustermesh-apiserver, by credentials that it gave us."""


@attrs.frozen(kw_only=True)
class EtcdAccess:
    """How a cluster's own etcd is read, where no gateway of ours stands before it.

    PEM throughout. It lies in our etcd, for whichever node leads: inside a cluster nodes
    trust each other, and no gateway exports it.
    """

    ca: str
    cert: str
    key: str = attrs.field(repr=False)
    names: dict[str, str] = attrs.field(factory=dict)
    """Endpoint -> the name its certificate has, where that is not its address."""


@attrs.frozen(kw_only=True)
class EtcdConfig:
    """Where a cluster's etcd is and how it is read."""

    endpoints: tuple[str, ...]
    """`host:port`."""
    access: EtcdAccess


@attrs.frozen(kw_only=True)
class Remote:
    """`meshnet/v1/remotes/<cluster>`: pinned at join, never widened by the remote itself."""

    name: str
    id: int
    mesh_ca: str
    """PEM. The gateway verifies this cluster's certificates against exactly this CA. Empty for
    a Cilium cluster, which has certificates of ours: see `peer_certificates`."""
    next_mesh_ca: str | None = None
    """PEM of a second one, while that cluster changes its CAs."""
    signers: tuple[str, ...] = ()
    """`host:port` of its enrolment ports: where it says which CAs are its own."""
    revoked: tuple[str, ...] = ()
    """Serial numbers (hex) of its mesh CA's certificates that it has called back."""
    expelled: tuple[str, ...] = ()
    """Its nodes that it has thrown out."""
    pod_cidrs: tuple[Prefix, ...]
    gateways: tuple[str, ...]
    """`host:port` of its gateways, or of its clustermesh-apiserver."""
    state: RemoteState = RemoteState.PENDING
    kind: RemoteKind = RemoteKind.MESHNET
    access: EtcdAccess | None = None
    peer_certificates: tuple[str, ...] = ()
    """PEM, the newest first: what `mesh access` has made for a Cilium cluster to read us by, and
    did not end since."""

    @property
    def trusted(self) -> tuple[str, ...]:
        """PEM of each CA by which its certificates are believed."""
        return (self.mesh_ca,) if self.next_mesh_ca is None else (self.mesh_ca, self.next_mesh_ca)


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
