"""Is this certificate what its holder says it is? Always asked against exactly one CA.

TLS alone cannot answer that for a gateway: it verifies against a bundle of every remote's
CA, and with a bundle any of them could sign any name.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from meshnet.errors import PermissionRefused, Refused
from meshnet.pki.certificate import Certificate, SigningRequest, Usage


def verify_ca(pem: bytes, *, now: datetime | None = None) -> Certificate:
    """Check that another cluster's CA certificate can be one.

    The answer's `pem` is that one certificate: a second one hidden behind it in the text
    would otherwise end up in the bundle that TLS trusts.

    Raises:
        Refused: not a certificate, no CA, not self-signed, not valid now, a foreign key.
    """
    ca = Certificate.parse(pem)
    name = ca.parsed.subject.rfc4514_string()
    try:
        constraints = ca.parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if not constraints.ca:
        raise Refused(f"certificate {name} is not that of a CA")
    if not ca.issued_by(ca):
        raise Refused(f"CA certificate {name} is not self-signed")
    _check_time(ca, now or datetime.now(UTC), f"CA certificate {name}")
    _ = ca.key_fingerprint  # refuses a key that is not ECDSA, which our TLS could not use
    return ca


def verify_peer(
    certificate: Certificate, ca: Certificate, usage: Usage, *, now: datetime | None = None
) -> Certificate:
    """Check a leaf against one CA, at this moment, for one usage.

    Raises:
        PermissionRefused: another CA signed it, it is not valid now, or it is for another
            purpose.
    """
    what = f"certificate of {certificate.node!r}"
    if not certificate.issued_by(ca):
        raise PermissionRefused(f"{what} is not signed by {ca.parsed.subject.rfc4514_string()}")
    _check_time(certificate, now or datetime.now(UTC), what)
    if usage not in certificate.usages():
        raise PermissionRefused(f"{what} is not meant for a {usage}")
    return certificate


def verify_renewal(
    certificate: Certificate,
    request: SigningRequest,
    ca: Certificate,
    *,
    now: datetime | None = None,
) -> Certificate:
    """Check that the holder of a certificate of ours asks to have it renewed.

    It may have expired, but by no more than its own lifetime: a node that was away for a
    week comes back by itself, one that was forgotten does not.

    Raises:
        PermissionRefused: not ours, not signed by the certificate's own key, too late.
    """
    moment = now or datetime.now(UTC)
    what = f"certificate of {certificate.node!r}"
    if not certificate.issued_by(ca):
        raise PermissionRefused(f"{what} is not signed by {ca.parsed.subject.rfc4514_string()}")
    if certificate.key_fingerprint != request.key_fingerprint:
        raise PermissionRefused(f"{what} cannot be renewed for another key: join again")
    if moment > certificate.not_after + certificate.lifetime:
        raise PermissionRefused(
            f"{what} expired at {_stamp(certificate.not_after)}, too long ago to renew: join again"
        )
    return certificate


def verify_crl(pem: bytes, trusted: Sequence[Certificate]) -> bytes:
    """The list again, when one of these CAs has signed it: etcd itself does not look.

    Raises Refused: not a list, or of another CA.
    """
    try:
        crl = x509.load_pem_x509_crl(pem)
    except ValueError as error:
        raise Refused(f"not a list of revoked certificates: {error}") from error
    keys = [ca.parsed.public_key() for ca in trusted]
    genuine = any(
        crl.is_signature_valid(key) for key in keys if isinstance(key, ec.EllipticCurvePublicKey)
    )
    if not genuine:
        raise Refused("list of revoked certificates is not signed by a node CA of this cluster")
    return pem


def choose_issuer(certificate: Certificate, trusted: Sequence[Certificate]) -> Certificate:
    """The one of the trusted CAs that signed it, else the first, to be refused against."""
    return next((ca for ca in trusted if certificate.issued_by(ca)), trusted[0])


def _check_time(certificate: Certificate, moment: datetime, what: str) -> None:
    if moment > certificate.not_after:
        raise PermissionRefused(f"{what} expired at {_stamp(certificate.not_after)}")
    if moment < certificate.parsed.not_valid_before_utc:
        valid_from = _stamp(certificate.parsed.not_valid_before_utc)
        raise PermissionRefused(f"{what} is valid from {valid_from} only: check the clocks")


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
