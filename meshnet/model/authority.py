"""The cluster's CAs as all its nodes trust them, and a change of CAs on its way.

    stable [old] ── rotate ──▶ announce [old, new] ──▶ sign [new, old] ──▶ stable [new]

The first of a list signs; every one of it is trusted. A step is taken when every node has
followed the one before, so at no moment is there a certificate that somebody does not trust.
"""

from __future__ import annotations

import datetime
import enum

import attrs


class Phase(enum.StrEnum):
    STABLE = "stable"
    ANNOUNCE = "announce"
    """The new CAs are trusted everywhere before they sign anything."""
    SIGN = "sign"
    """The new CAs sign; every certificate of the old ones is replaced."""


@attrs.frozen(kw_only=True)
class TrustState:
    """`meshnet/v1/trust/state`. Certificates alone: a CA's key is never in etcd."""

    epoch: int = 0
    """Grows with each step, so that a node can say which one it has followed."""
    phase: Phase = Phase.STABLE
    node_cas: tuple[str, ...]
    """PEM, the one that signs first."""
    mesh_cas: tuple[str, ...]
    endorsements: tuple[str, ...] = ()
    """PEM: each new CA as the old one certified it. Without it nobody believes a new CA,
    whoever wrote this key."""
    since: datetime.datetime
    """When this phase began."""


@attrs.frozen(kw_only=True)
class TrustReport:
    """`meshnet/v1/trust/nodes/<node>`: how far a node has followed; under its lease."""

    epoch: int
    renewed: bool
    """Each of its certificates is of the CA that signs now."""
    signer: str | None = None
    """`host:port` of its enrolment port, when it is a signer."""
    keys: int = 0
    """How many of the trusted CAs it holds the keys of."""
    crl: int | None = None
    """The number of the list that the etcd it runs refuses by; None: it runs none."""


@attrs.frozen(kw_only=True)
class Crl:
    """`meshnet/v1/trust/crl/<CA>`: the certificates of a CA that were called back."""

    number: int
    """Grows with each change."""
    serials: tuple[str, ...]
    """Hex."""
    pem: str


@attrs.frozen(kw_only=True)
class Issued:
    """`meshnet/v1/issued/<node>/<serial>`: a certificate that a signer gave that node."""

    profile: str
    not_after: datetime.datetime


@attrs.frozen(kw_only=True)
class Revocation:
    """`meshnet/v1/revoked/<node>`: what was issued to it until then is worth nothing."""

    at: datetime.datetime
    serials: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    """By CA (`node`, `mesh`): serial numbers, hex, of what had been issued."""


@attrs.frozen(kw_only=True)
class ToldRemote:
    """`meshnet/v1/trust/told/<cluster>`: that another cluster has asked for our CAs."""

    epoch: int
