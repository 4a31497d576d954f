"""A node's PKI directory: which file is what, who may read it, when it expires.

    {node,mirror,gateway,etcd,enrolment}.{crt,key}   leaves, one a profile
    {node,mesh}-ca.crt                               the trusted CAs' certificates, on every node
    {node,mesh}-ca.key, {node,mesh}-ca-2.key         on signers only; the second while CAs change

The directory is 0700 and keys are 0600. Each file is replaced by rename, so that a reader
sees the old one or the new one. A renewed certificate keeps its key, hence certificate and
key never disagree.
"""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from meshnet.errors import ConfigError
from meshnet.pki.certificate import Authority, Certificate, Profile, generate_key

_SECRET, _PUBLIC = 0o600, 0o644


@attrs.frozen(kw_only=True)
class Expiry:
    """When one certificate of this node runs out."""

    profile: Profile
    not_after: datetime
    renew_at: datetime
    lifetime: timedelta


class PkiStore:
    """The files under one directory, by meaning."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def certificate_path(self, profile: Profile) -> Path:
        return self.directory / f"{profile}.crt"

    def key_path(self, profile: Profile) -> Path:
        return self.directory / f"{profile}.key"

    def ca_path(self, authority: Authority) -> Path:
        return self.directory / f"{authority}-ca.crt"

    def ca_key_path(self, authority: Authority) -> Path:
        return self.directory / f"{authority}-ca.key"

    def ensure_key(self, profile: Profile) -> bytes:
        """The profile's private key, made on first use.

        It is on disk before anybody hears of it, so a join that died half-way is the same
        claimant when it is tried again.
        """
        path = self.key_path(profile)
        if not path.exists():
            self._write(path, generate_key(), _SECRET)
        return self._read(path)

    def certificate(self, profile: Profile) -> Certificate | None:
        """The stored certificate, or None when this node has no such one."""
        path = self.certificate_path(profile)
        return Certificate.parse(self._read(path)) if path.exists() else None

    def save_certificate(self, profile: Profile, pem: bytes) -> None:
        self._write(self.certificate_path(profile), pem, _PUBLIC)

    def pair(self, profile: Profile) -> tuple[bytes, bytes]:
        """(certificate, key), PEM, as TLS libraries want them. Raises ConfigError."""
        return self._read(self.certificate_path(profile)), self._read(self.key_path(profile))

    def ca(self, authority: Authority) -> bytes:
        """PEM of every CA that is trusted, the one that signs first."""
        return self._read(self.ca_path(authority))

    def save_ca(self, authority: Authority, pem: bytes) -> None:
        self._write(self.ca_path(authority), pem, _PUBLIC)

    def authorities(self, authority: Authority) -> tuple[Certificate, ...]:
        """All that are trusted: one, or two while CAs change. The first one signs."""
        return Certificate.parse_all(self.ca(authority))

    def founding(self, authority: Authority) -> Certificate:
        """The oldest that is trusted: whoever trusts any of them trusts this one."""
        return min(self.authorities(authority), key=lambda ca: ca.issued_at)

    def ca_keys(self, authority: Authority) -> tuple[bytes, ...]:
        """The CA keys that this node holds, in no order; none on a node that does not sign."""
        paths = (self.ca_key_path(authority), self._second_ca_key_path(authority))
        return tuple(self._read(path) for path in paths if path.exists())

    def save_ca_keys(self, authority: Authority, pems: tuple[bytes, ...]) -> None:
        """These, one or two, and no others."""
        paths = (self.ca_key_path(authority), self._second_ca_key_path(authority))
        for path, pem in zip(paths, pems, strict=False):
            self._write(path, pem, _SECRET)
        for path in paths[len(pems) :]:
            path.unlink(missing_ok=True)

    def _second_ca_key_path(self, authority: Authority) -> Path:
        return self.directory / f"{authority}-ca-2.key"

    def signers(self) -> tuple[str, ...]:
        """`host:port` of the enrolment ports last heard of.

        Kept outside etcd: a node whose certificate has expired cannot read etcd, and
        still has to renew.
        """
        path = self.directory / "signers.json"
        return tuple(json.loads(self._read(path))) if path.exists() else ()

    def save_signers(self, endpoints: tuple[str, ...]) -> None:
        self._write(self.directory / "signers.json", json.dumps(endpoints).encode(), _PUBLIC)

    def expiries(self) -> tuple[Expiry, ...]:
        """What expires when, soonest first."""
        found = ((profile, self.certificate(profile)) for profile in Profile)
        expiries = (
            Expiry(
                profile=profile,
                not_after=cert.not_after,
                renew_at=cert.renew_at,
                lifetime=cert.lifetime,
            )
            for profile, cert in found
            if cert is not None
        )
        return tuple(sorted(expiries, key=lambda expiry: expiry.not_after))

    def due(
        self, now: datetime | None = None, *, lifetime: timedelta | None = None
    ) -> tuple[Profile, ...]:
        """Certificates that have lived two thirds of their life, that were made for a longer
        life than `lifetime`, or by a CA that signs no more; soonest to expire first."""
        moment = now or datetime.now(UTC)
        return tuple(
            expiry.profile
            for expiry in self.expiries()
            if expiry.renew_at <= moment
            or (lifetime is not None and expiry.lifetime > lifetime)
            or not self._by_signing_ca(expiry.profile)
        )

    def issuer(self, profile: Profile) -> Certificate:
        """The CA that should have signed that certificate.

        A signer shows the enrolment port's to those who may trust only the oldest CA.
        """
        if profile is Profile.ENROLMENT:
            return self.founding(profile.authority)
        return self.authorities(profile.authority)[0]

    def outdated(self) -> tuple[Profile, ...]:
        """Certificates of a CA that signs no more."""
        return tuple(
            expiry.profile
            for expiry in self.expiries()
            if expiry.profile is not Profile.ENROLMENT and not self._by_signing_ca(expiry.profile)
        )

    @property
    def crl_path(self) -> Path:
        return self.directory / "node.crl"

    def crl(self) -> bytes | None:
        """The certificates of the node CA that were called back; None: none ever was."""
        return self._read(self.crl_path) if self.crl_path.exists() else None

    def save_crl(self, pem: bytes) -> None:
        self._write(self.crl_path, pem, _PUBLIC)

    def _by_signing_ca(self, profile: Profile) -> bool:
        certificate = self.certificate(profile)
        return certificate is not None and certificate.issued_by(self.issuer(profile))

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes the file 0600: a secret is never readable by others, not for a moment
        handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
