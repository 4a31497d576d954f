"""What the signer writes into a certificate, whatever the signing request asks for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from meshnet.errors import ConfigError, Refused
from meshnet.pki.ca import CertificateAuthority, Signer
from meshnet.pki.certificate import (
    Authority,
    Certificate,
    Profile,
    SigningRequest,
    Subject,
    Usage,
    generate_key,
    load_key,
    make_csr,
    parse_uri,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
BOTH = {Usage.CLIENT, Usage.SERVER}


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer.create("east", now=NOW)


def subject(profile: Profile, **fields: object) -> Subject:
    return Subject(profile=profile, cluster="east", node="n1", **fields)  # type: ignore[arg-type]  # fields vary by test


def pem(request: x509.CertificateSigningRequest) -> bytes:
    return request.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("profile", "usages", "uri", "authority"),
    [
        (Profile.NODE, BOTH, "meshnet://east/node/n1", Authority.NODE),
        (Profile.ETCD, BOTH, "meshnet://east/etcd/n1", Authority.NODE),
        (Profile.GATEWAY, {Usage.SERVER}, "meshnet://east/gateway/n1", Authority.MESH),
        (Profile.MIRROR, {Usage.CLIENT}, "meshnet://east/mirror", Authority.MESH),
        (Profile.ENROLMENT, {Usage.SERVER}, "meshnet://east/enrolment/n1", Authority.MESH),
    ],
)
def test_profile_decides_usages_name_and_ca(
    signer: Signer, profile: Profile, usages: set[Usage], uri: str, authority: Authority
) -> None:
    wanted = subject(profile, addresses=(ip_address("10.0.0.1"),), dns_names=("localhost",))

    certificate = signer.sign(make_csr(generate_key(), "n1"), wanted, now=NOW)

    assert certificate.usages() == usages
    assert certificate.uris == (uri,)
    assert certificate.subject == wanted
    issuer = signer.authority(authority).certificate.parsed
    certificate.parsed.verify_directly_issued_by(issuer)


def test_names_and_extensions_of_the_request_are_ignored(signer: Signer) -> None:
    key = load_key(generate_key())
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("meshnet://west/mirror")]),
            False,
        )
        .sign(key, hashes.SHA256())
    )

    certificate = signer.sign(pem(greedy), subject(Profile.GATEWAY), now=NOW)

    assert certificate.node == "n1"
    assert certificate.uris == ("meshnet://east/gateway/n1",)
    constraints = certificate.parsed.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.value.ca is False


def test_certificate_lives_its_lifetime_from_now_and_tolerates_a_clock_five_minutes_behind(
    signer: Signer,
) -> None:
    csr = make_csr(generate_key(), "n1")

    certificate = signer.sign(csr, subject(Profile.NODE), lifetime=timedelta(days=3), now=NOW)

    assert certificate.parsed.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificate.not_after == NOW + timedelta(days=3)
    assert certificate.renew_at == NOW + timedelta(days=2), "renewed at two thirds"


def test_seven_days_is_the_default_lifetime(signer: Signer) -> None:
    certificate = signer.sign(make_csr(generate_key(), "n1"), subject(Profile.NODE), now=NOW)

    assert certificate.lifetime == timedelta(days=7)


def test_request_signed_by_another_key_is_refused() -> None:
    honest = x509.load_pem_x509_csr(make_csr(generate_key(), "n1"))
    der = honest.public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_csr(der[:-1] + bytes([der[-1] ^ 1]))  # ends with the signature

    with pytest.raises(Refused, match=r"^signing request is not signed by its own key$"):
        SigningRequest.parse(pem(forged))


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())]
)
def test_request_with_a_foreign_kind_of_key_is_refused(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))

    with pytest.raises(Refused, match=r"^signing request has a key that is not ECDSA P-256$"):
        SigningRequest.parse(pem(request.sign(key, algorithm)))


def test_text_that_is_no_request_certificate_or_key_is_refused() -> None:
    with pytest.raises(Refused, match=r"^not a PEM signing request: "):
        SigningRequest.parse(b"hello")
    with pytest.raises(Refused, match=r"^not a PEM certificate: "):
        Certificate.parse(b"hello")
    with pytest.raises(ConfigError, match=r"^not a PEM private key: "):
        load_key(b"hello")


@pytest.mark.parametrize(
    "uri", ["meshnet://east/root", "https://east/mirror", "meshnet:///mirror", "east", ""]
)
def test_uri_that_is_no_meshnet_name_is_refused(uri: str) -> None:
    with pytest.raises(Refused, match=r"is no meshnet name$"):
        parse_uri(uri)


def test_ca_key_that_belongs_to_another_certificate_is_refused(signer: Signer) -> None:
    with pytest.raises(ConfigError, match=r"^CA key is not that of CN=meshnet east node CA$"):
        CertificateAuthority.from_pem(signer.node.certificate.pem, signer.mesh.key_pem())


def test_ca_key_shows_in_no_repr(signer: Signer) -> None:
    assert "PRIVATE" not in repr(signer)
    assert "PRIVATE" not in repr(signer.mesh)
