"""The two certificate authorities of a cluster, and what they sign.

The keys live on signer nodes only, in files of mode 0600, and never in etcd.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
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
    Profile,
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
        cls, authority: Authority, cluster: str, *, now: datetime | None = None, after: str = ""
    ) -> CertificateAuthority:
        """A new self-signed CA that may sign leaves and no further CA.

        `after`: what tells its name from that of the one it will replace.
        """
        key = load_key(generate_key())
        name = common_name(f"meshnet {cluster} {authority} CA {after}".rstrip())
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

    def successor(self, cluster: str, authority: Authority) -> CertificateAuthority:
        """The CA that will replace this one; younger by a second at least, to tell them apart."""
        now = max(datetime.now(UTC), self.certificate.issued_at + timedelta(seconds=1))
        return self.create(authority, cluster, now=now, after=now.strftime("%Y-%m-%dT%H:%M:%SZ"))

    def endorse(self, other: Certificate) -> Certificate:
        """This CA's word that the other one's key is a CA's too: the same name and key."""
        names = self.certificate.parsed.subject, other.parsed.subject
        key = other.parsed.public_key()
        builder = _builder(*names, key, other.issued_at, CA_LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_key_usage(key_cert_sign=True), True)
        return Certificate(builder.sign(self._key, hashes.SHA256()))

    def revoke(self, serials: Iterable[int], *, number: int, now: datetime | None = None) -> bytes:
        """The list (PEM) of certificates of this CA that nobody shall believe.

        Source: RFC 5280 section 5. It has no end of its own: the next one replaces it.
        """
        moment = now or datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder()
        builder = builder.issuer_name(self.certificate.parsed.subject)
        builder = builder.last_update(moment - BACKDATE).next_update(moment + CA_LIFETIME)
        builder = builder.add_extension(x509.CRLNumber(number), False)
        for serial in sorted(set(serials)):
            revoked = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(revoked.revocation_date(moment).build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

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
    enrolment: CertificateAuthority | None = attrs.field(default=None, repr=False)
    """Signs the enrolment port's certificate while CAs change: the old mesh CA, which
    everybody still trusts. None: the mesh CA."""
    believed: dict[Authority, tuple[Certificate, ...]] = attrs.field(factory=dict)
    """Every CA that is trusted; empty: those that sign."""

    @classmethod
    def create(cls, cluster: str, *, now: datetime | None = None) -> Signer:
        node, mesh = (CertificateAuthority.create(which, cluster, now=now) for which in Authority)
        return cls(node, mesh)

    @classmethod
    def load(cls, store: PkiStore) -> Signer:
        """Read those that sign now. Raises ConfigError when one or its key is missing."""
        node, mesh = (
            _with_key(store.authorities(which)[0], store.ca_keys(which)) for which in Authority
        )
        founding = store.founding(Authority.MESH)
        held = holders((founding,), store.ca_keys(Authority.MESH))
        believed = {which: store.authorities(which) for which in Authority}
        return cls(node, mesh, held[0] if held else None, believed)

    def save(self, store: PkiStore) -> None:
        for which in Authority:
            authority = self.authority(which)
            store.save_ca_keys(which, (authority.key_pem(),))
            store.save_ca(which, authority.certificate.pem)

    def authority(self, which: Authority) -> CertificateAuthority:
        return self.node if which is Authority.NODE else self.mesh

    def trusted(self, which: Authority) -> tuple[Certificate, ...]:
        """The one that signs first."""
        return self.believed.get(which) or (self.authority(which).certificate,)

    def issuer(self, profile: Profile) -> CertificateAuthority:
        if profile is Profile.ENROLMENT and self.enrolment is not None:
            return self.enrolment
        return self.authority(profile.authority)

    def sign(
        self,
        csr: bytes,
        subject: Subject,
        *,
        lifetime: timedelta = LIFETIME,
        now: datetime | None = None,
    ) -> Certificate:
        """Sign with the CA that the subject's profile belongs to. Raises Refused: bad CSR."""
        authority = self.issuer(subject.profile)
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


def holders(
    certificates: Iterable[Certificate], keys: tuple[bytes, ...]
) -> tuple[CertificateAuthority, ...]:
    """Those of the CAs whose key is among these."""
    found = []
    for certificate in certificates:
        with contextlib.suppress(ConfigError):  # a key that cannot be read is none
            found.append(_with_key(certificate, keys))
    return tuple(found)


def _with_key(certificate: Certificate, keys: tuple[bytes, ...]) -> CertificateAuthority:
    """Raises ConfigError when none of the keys is that CA's."""
    if not keys:
        name = certificate.parsed.subject.rfc4514_string()
        raise ConfigError(f"no key of CA {name} is on this node: it is no signer, or lost it")
    for key in keys[:-1]:
        with contextlib.suppress(ConfigError):
            return CertificateAuthority.from_pem(certificate.pem, key)
    return CertificateAuthority.from_pem(certificate.pem, keys[-1])


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
