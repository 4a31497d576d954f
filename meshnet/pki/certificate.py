"""What meshnet's certificates say: profiles, names, keys and signing requests.

Every name in a certificate is chosen by the signer out of a `Subject`; a signing request
carries a public key and the proof that its sender holds the private one, nothing else.
Keys are ECDSA P-256: grpcio refuses Ed25519.

Source: RFC 5280 sections 4.2.1.6 (subject alternative names) and 4.2.1.12 (key usage).
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshnet.errors import ConfigError, Refused
from meshnet.model.addressing import Address

LIFETIME = timedelta(days=7)
BACKDATE = timedelta(minutes=5)
"""How far `not_before` lies in the past, so that a clock a little behind accepts it."""
RENEW_AFTER = 2 / 3
"""The share of its lifetime after which a certificate is renewed."""

_SCHEME = "meshnet"


class Authority(enum.StrEnum):
    """A cluster's two CAs. etcd trusts the node CA only; other clusters know the mesh CA only."""

    NODE = "node"
    MESH = "mesh"


class Usage(enum.StrEnum):
    CLIENT = "client"
    SERVER = "server"

    @property
    def oid(self) -> x509.ObjectIdentifier:
        client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
        return client if self is Usage.CLIENT else server


class Profile(enum.StrEnum):
    """What a certificate is for; also the name of its files."""

    NODE = "node"
    ETCD = "etcd"
    GATEWAY = "gateway"
    MIRROR = "mirror"
    ENROLMENT = "enrolment"
    PEER = "peer"
    """Of a Cilium cluster that reads us: issued by us, held by no node of ours."""

    @property
    def authority(self) -> Authority:
        return Authority.NODE if self in (Profile.NODE, Profile.ETCD) else Authority.MESH

    @property
    def usages(self) -> tuple[Usage, ...]:
        """etcd's server certificate is its client certificate too: it dials itself."""
        match self:
            case Profile.NODE | Profile.ETCD:
                return (Usage.CLIENT, Usage.SERVER)
            case Profile.MIRROR | Profile.PEER:
                return (Usage.CLIENT,)
            case Profile.GATEWAY | Profile.ENROLMENT:
                return (Usage.SERVER,)


OF_NODES = tuple(profile for profile in Profile if profile is not Profile.PEER)
"""What a node may hold, each under the name of its profile."""


@attrs.frozen(kw_only=True)
class Subject:
    """Whom a certificate names. The signer decides it, never the signing request."""

    profile: Profile
    cluster: str
    node: str
    addresses: tuple[Address, ...] = ()
    dns_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, profile: Profile, cluster: str, node: str, addresses: Iterable[Address]) -> Subject:
        """A node's subject with the names that its profile wants.

        etcd is also called by its own node; a signer is found by its role, not its address;
        a mirror only calls, so nobody looks for its address.
        """
        listening = () if profile is Profile.MIRROR else tuple(addresses)
        dns_names: tuple[str, ...] = ()
        if profile is Profile.ETCD:
            loopback = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
            listening = (*listening, *(a for a in loopback if a not in listening))
            dns_names = ("localhost",)
        elif profile is Profile.ENROLMENT:
            dns_names = (enrolment_name(cluster),)
        return cls(
            profile=profile,
            cluster=cluster,
            node=node,
            addresses=listening,
            dns_names=dns_names,
        )

    @property
    def uri(self) -> str:
        """The name that decides what the holder may do.

        A mirror's is that of its whole cluster: other clusters need not know our nodes.
        """
        path = "mirror" if self.profile is Profile.MIRROR else f"{self.profile}/{self.node}"
        return f"{_SCHEME}://{self.cluster}/{path}"

    def alternative_names(self) -> x509.SubjectAlternativeName:
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(self.uri)]
        names += [x509.IPAddress(address) for address in self.addresses]
        names += [x509.DNSName(name) for name in self.dns_names]
        return x509.SubjectAlternativeName(names)


def enrolment_name(cluster: str) -> str:
    """The DNS name that a joiner wants to see on the enrolment port.

    A name of the role and not of the host: another node's gateway certificate, though
    signed by the same CA, cannot pose as the signer, whatever addresses it carries.
    """
    return f"enrolment.{cluster}.meshnet"


@attrs.frozen(eq=False)
class Certificate:
    """One certificate, and what is asked about it. Reading it verifies nothing."""

    parsed: x509.Certificate = attrs.field(repr=False)

    @classmethod
    def parse(cls, pem: bytes) -> Certificate:
        """Read the first certificate of a PEM text. Raises Refused when there is none."""
        try:
            return cls(x509.load_pem_x509_certificate(pem))
        except ValueError as error:
            raise Refused(f"not a PEM certificate: {error}") from error

    @classmethod
    def parse_all(cls, pem: bytes) -> tuple[Certificate, ...]:
        """Every certificate of a PEM text. Raises Refused when there is none."""
        try:
            return tuple(map(cls, x509.load_pem_x509_certificates(pem)))
        except ValueError as error:
            raise Refused(f"not a PEM certificate: {error}") from error

    def issued_by(self, issuer: Certificate) -> bool:
        """Whether that key has signed this, whatever its names and times."""
        try:
            self.parsed.verify_directly_issued_by(issuer.parsed)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    @property
    def serial(self) -> int:
        return self.parsed.serial_number

    @property
    def pem(self) -> bytes:
        """This certificate alone, whatever else the text held that it was read from."""
        return self.parsed.public_bytes(serialization.Encoding.PEM)

    @property
    def node(self) -> str:
        """The common name: for the node that holds it. Trust it only under our own CA."""
        names = self.parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else ""

    @property
    def uris(self) -> tuple[str, ...]:
        return tuple(self._alternative_names().get_values_for_type(x509.UniformResourceIdentifier))

    @property
    def subject(self) -> Subject:
        """What the signer had named. Raises Refused for a certificate not of this module."""
        names = self._alternative_names()
        cluster, profile = self._place()
        return Subject(
            profile=profile,
            cluster=cluster,
            node=self.node,
            addresses=tuple(
                address
                for address in names.get_values_for_type(x509.IPAddress)
                if isinstance(address, Address)
            ),
            dns_names=tuple(names.get_values_for_type(x509.DNSName)),
        )

    @property
    def not_after(self) -> datetime:
        return self.parsed.not_valid_after_utc

    @property
    def issued_at(self) -> datetime:
        return self.parsed.not_valid_before_utc + BACKDATE

    @property
    def lifetime(self) -> timedelta:
        return self.not_after - self.issued_at

    @property
    def renew_at(self) -> datetime:
        return self.issued_at + self.lifetime * RENEW_AFTER

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, hex."""
        return self.parsed.fingerprint(hashes.SHA256()).hex()

    @property
    def key_fingerprint(self) -> str:
        return key_fingerprint(self.parsed.public_key())

    def usages(self) -> frozenset[Usage]:
        try:
            found = self.parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return frozenset()
        return frozenset(usage for usage in Usage if usage.oid in found)

    def _alternative_names(self) -> x509.SubjectAlternativeName:
        extensions = self.parsed.extensions
        try:
            return extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return x509.SubjectAlternativeName([])

    def _place(self) -> tuple[str, Profile]:
        uris = self.uris
        if len(uris) != 1:
            raise Refused(f"certificate of {self.node!r} names {len(uris)} URIs instead of one")
        return parse_uri(uris[0])


def parse_uri(uri: str) -> tuple[str, Profile]:
    """Cluster and profile in `meshnet://<cluster>/<profile>[/<node>]`, else Refused."""
    parts = urlsplit(uri)
    profile = parts.path.removeprefix("/").partition("/")[0]
    if parts.scheme != _SCHEME or not parts.netloc or profile not in set(Profile):
        raise Refused(f"certificate names {uri!r}, which is no meshnet name")
    return parts.netloc, Profile(profile)


@attrs.frozen(eq=False)
class SigningRequest:
    """A CSR whose signature was checked: its sender holds the private key."""

    parsed: x509.CertificateSigningRequest = attrs.field(repr=False)

    @classmethod
    def parse(cls, pem: bytes) -> SigningRequest:
        """Read a CSR. Raises Refused: not one, a foreign key type, a false signature."""
        try:
            request = x509.load_pem_x509_csr(pem)
            key = request.public_key()
            genuine = request.is_signature_valid
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Refused(f"not a PEM signing request: {error}") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
            key.curve, ec.SECP256R1
        ):
            raise Refused("signing request has a key that is not ECDSA P-256")
        if not genuine:
            raise Refused("signing request is not signed by its own key")
        return cls(request)

    @property
    def key_fingerprint(self) -> str:
        return key_fingerprint(self.parsed.public_key())

    @property
    def common_name(self) -> str:
        """What its sender wrote: no authority, but it may answer a challenge."""
        names = self.parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else ""


def generate_key() -> bytes:
    """A new private key, PEM (PKCS #8)."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises ConfigError: keys come from our own files, so a bad one is the operator's."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"not a PEM private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("private key is not ECDSA")
    return key


def make_csr(key_pem: bytes, node: str) -> bytes:
    """A signing request for that key, PEM. The name in it is for human readers only."""
    request = x509.CertificateSigningRequestBuilder().subject_name(common_name(node))
    signed = request.sign(load_key(key_pem), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def key_fingerprint(key: object) -> str:
    """SHA-256 of a public key's SubjectPublicKeyInfo, hex: names a key holder for good."""
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Refused("public key is not ECDSA")
    info = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(info).hexdigest()
