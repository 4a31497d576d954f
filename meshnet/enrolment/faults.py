"""Refusals on their way over gRPC: a status code for each class a joiner decides by."""

from __future__ import annotations

import grpc

from meshnet.errors import (
    ConfigError,
    Conflict,
    MeshnetError,
    PermissionRefused,
    Refused,
    RegistryError,
    TokenRefused,
    Unreachable,
)

LONGEST = 500
"""Characters of a message that the other side may show us."""

_TABLE: tuple[tuple[type[MeshnetError], grpc.StatusCode], ...] = (
    (TokenRefused, grpc.StatusCode.UNAUTHENTICATED),
    (PermissionRefused, grpc.StatusCode.PERMISSION_DENIED),
    (Refused, grpc.StatusCode.FAILED_PRECONDITION),
    (ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
    (Conflict, grpc.StatusCode.ABORTED),
    (Unreachable, grpc.StatusCode.UNAVAILABLE),
    (RegistryError, grpc.StatusCode.INTERNAL),
)
"""The most particular class first."""


def status_of(error: MeshnetError) -> grpc.StatusCode:
    for kind, code in _TABLE:
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.UNKNOWN


def error_of(code: grpc.StatusCode, details: str) -> MeshnetError:
    """What the other side meant. Its text is foreign: one line, printable, not endless."""
    text = "".join(char if char.isprintable() else "?" for char in details[:LONGEST])
    for kind, known in _TABLE:
        if known is code:
            return kind(text)
    return Refused(f"the signer failed: {code.name}: {text}")
