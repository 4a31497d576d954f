"""The two certificate authorities of a cluster, and what they sign.

The keys live on signer nodes only, in files of mode 0600, and never in etcd.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshnet.errors import ConfigError
from meshnet.pki.certificate import (
    BACKDATE,
    LIFETIME,
    Authority,
    Certificate,
    SigningRequest,
    Subject,
    common_name,
    generate_key,
    load_key,
    make_csr,
)
from meshnet.pki.store import PkiStore

CA_LIFETIME = timedelta(days=3650)


class CertificateAuthority:
    """One CA: its certificate and its key."""

    def __init__(self, certificate: Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def create(
        cls, authority: Authority, cluster: str, *, now: datetime | None = None
    ) -> CertificateAuthority:
        """A new self-signed CA that may sign leaves and no further CA."""
        key = load_key(generate_key())
        name = common_name(f"meshnet {cluster} {authority} CA")
        issued = now or datetime.now(UTC)
        builder = _builder(name, name, key.public_key(), issued, CA_LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_key_usage(key_cert_sign=True), True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
        )
        return cls(Certificate(builder.sign(key, hashes.SHA256())), key)

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes) -> CertificateAuthority:
        """Raises ConfigError when the two do not belong together."""
        ours, private = Certificate.parse(certificate), load_key(key)
        if ours.parsed.public_key() != private.public_key():
            raise ConfigError(f"CA key is not that of {ours.parsed.subject.rfc4514_string()}")
        return cls(ours, private)

    def key_pem(self) -> bytes:
        """The secret itself. Only for the signer's own file and for a new signer."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(
        self,
        request: SigningRequest,
        subject: Subject,
        *,
        lifetime: timedelta = LIFETIME,
        now: datetime | None = None,
    ) -> Certificate:
        """A leaf for the request's key, with the subject's names and its profile's usages."""
        issued = now or datetime.now(UTC)
        issuer = self.certificate.parsed
        builder = _builder(
            issuer.subject, common_name(subject.node), request.parsed.public_key(), issued, lifetime
        )
        usages = [usage.oid for usage in subject.profile.usages]
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_key_usage(key_cert_sign=False), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), True)
        builder = builder.add_extension(subject.alternative_names(), False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False
        )
        return Certificate(builder.sign(self._key, hashes.SHA256()))


@attrs.frozen
class Signer:
    """Both CAs of one cluster, on a node that may sign."""

    node: CertificateAuthority = attrs.field(repr=False)
    mesh: CertificateAuthority = attrs.field(repr=False)

    @classmethod
    def create(cls, cluster: str, *, now: datetime | None = None) -> Signer:
        return cls(*(CertificateAuthority.create(which, cluster, now=now) for which in Authority))

    @classmethod
    def load(cls, store: PkiStore) -> Signer:
        """Read both from the node's PKI directory. Raises ConfigError when one is missing."""
        return cls(
            *(
                CertificateAuthority.from_pem(store.ca(which), store.ca_key(which))
                for which in Authority
            )
        )

    def save(self, store: PkiStore) -> None:
        for which in Authority:
            authority = self.authority(which)
            store.save_ca_key(which, authority.key_pem())
            store.save_ca(which, authority.certificate.pem)

    def authority(self, which: Authority) -> CertificateAuthority:
        return self.node if which is Authority.NODE else self.mesh

    def sign(
        self,
        csr: bytes,
        subject: Subject,
        *,
        lifetime: timedelta = LIFETIME,
        now: datetime | None = None,
    ) -> Certificate:
        """Sign with the CA that the subject's profile belongs to. Raises Refused: bad CSR."""
        authority = self.authority(subject.profile.authority)
        return authority.sign(SigningRequest.parse(csr), subject, lifetime=lifetime, now=now)

    def enrol(
        self,
        store: PkiStore,
        subject: Subject,
        *,
        lifetime: timedelta = LIFETIME,
        now: datetime | None = None,
    ) -> None:
        """Give this very node a certificate: key, signature and files, all at home."""
        csr = make_csr(store.ensure_key(subject.profile), subject.node)
        certificate = self.sign(csr, subject, lifetime=lifetime, now=now)
        store.save_certificate(subject.profile, certificate.pem)


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: object,
    issued: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)  # type: ignore[arg-type]  # a union that the caller has checked
        .serial_number(x509.random_serial_number())
        .not_valid_before(issued - BACKDATE)
        .not_valid_after(issued + lifetime)
    )


def _key_usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )
