"""Join tokens: `mnt1.<base64url>`, what one cluster hands to a node or to another cluster.

A token says whom to ask (endpoints), how to know it is them (the mesh CA) and why they
should agree (a secret, of which etcd keeps the hash alone). The bytes inside:

    u16 length, JSON {name, id, kind, endpoints}    u16 length, CA certificate (DER)
    32 bytes secret                                 u32 CRC-32 of all before, against bad copies

Integers are big-endian.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import struct
import zlib

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from meshnet.errors import ConfigError, TokenRefused
from meshnet.model import names
from meshnet.model.token import TokenKind
from meshnet.pki.certificate import Certificate

PREFIX = "mnt1."
SECRET_BYTES = 32


_COMMANDS = {TokenKind.NODE: "meshnet cluster join", TokenKind.MESH: "meshnet mesh join"}


@attrs.frozen(kw_only=True)
class JoinToken:
    cluster: str
    cluster_id: int
    kind: TokenKind
    endpoints: tuple[str, ...]
    """`host:port` of the enrolment ports of the cluster's signers."""
    ca: Certificate
    """The mesh CA: the enrolment port must prove itself to it before the secret is sent."""
    secret: bytes = attrs.field(repr=False)

    def encode(self) -> str:
        header = json.dumps(
            {
                "name": self.cluster,
                "id": self.cluster_id,
                "kind": self.kind,
                "endpoints": self.endpoints,
            },
            separators=(",", ":"),
        ).encode()
        der = self.ca.parsed.public_bytes(serialization.Encoding.DER)
        body = b"".join(
            (struct.pack("!H", len(header)), header, struct.pack("!H", len(der)), der, self.secret)
        )
        sealed = body + struct.pack("!I", zlib.crc32(body))
        return PREFIX + base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> JoinToken:
        """Read a token. Raises TokenRefused: not a token, or truncated or damaged."""
        stripped = text.strip()
        if not stripped.startswith(PREFIX):
            raise TokenRefused(f"not a join token: it must start with {PREFIX!r}")
        encoded = stripped.removeprefix(PREFIX)
        try:
            sealed = base64.b64decode(
                encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True
            )
            body, checksum = sealed[:-4], sealed[-4:]
            if struct.pack("!I", zlib.crc32(body)) != checksum:
                raise ValueError("checksum differs")
            header, rest = _cut(body)
            der, secret = _cut(rest)
            fields = json.loads(header)
            if len(secret) != SECRET_BYTES:
                raise ValueError("secret has another length")
            return cls(
                cluster=names.cluster_name(fields["name"]),
                cluster_id=names.cluster_id(fields["id"]),
                kind=TokenKind(fields["kind"]),
                endpoints=tuple(fields["endpoints"]),
                ca=Certificate(x509.load_der_x509_certificate(der)),
                secret=secret,
            )
        except (ValueError, KeyError, TypeError, binascii.Error, ConfigError) as error:
            raise TokenRefused(
                f"join token of {len(stripped)} characters is truncated or damaged: copy it again"
            ) from error

    def require(self, kind: TokenKind) -> JoinToken:
        """Itself, or TokenRefused when it is for something else."""
        if self.kind is not kind:
            raise TokenRefused(
                f"token of cluster {self.cluster!r} is for `{_COMMANDS[self.kind]}`, "
                f"not for `{_COMMANDS[kind]}`"
            )
        return self

    @property
    def sha256(self) -> str:
        return secret_sha256(self.secret)


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def secret_sha256(secret: bytes) -> str:
    """The name under which etcd knows a token. The secret itself is never stored."""
    return hashlib.sha256(secret).hexdigest()


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """Split off one field that is preceded by its length."""
    if len(data) < 2:
        raise ValueError("too short")
    (length,) = struct.unpack_from("!H", data)
    if len(data) < 2 + length:
        raise ValueError("too short")
    return data[2 : 2 + length], data[2 + length :]
