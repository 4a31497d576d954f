"""A join token as its cluster remembers it. The secret itself is never kept."""

from __future__ import annotations

import datetime
import enum

import attrs


class TokenKind(enum.StrEnum):
    NODE = "node"
    """One more node for this cluster."""
    MESH = "mesh"
    """Another cluster for this mesh."""


@attrs.frozen(kw_only=True)
class TokenRecord:
    """`meshnet/v1/tokens/<sha256 of the secret>`, under a lease of the token's life."""

    id: str
    """What operators call it: enough of the hash to tell tokens apart."""
    kind: TokenKind
    signer: bool = False
    """The node that joins receives the CA keys."""
    for_cluster: str | None = None
    """The only cluster that may use it; None: any."""
    expires_at: datetime.datetime
    used_by: str | None = None
    """Hash of the request that used it up (CSR or CA), so that the same one may retry."""
