"""A certificate is believed against exactly one CA, at one moment, for one purpose."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from meshnet.errors import PermissionRefused, Refused
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import (
    Certificate,
    Profile,
    SigningRequest,
    Subject,
    Usage,
    generate_key,
    load_key,
    make_csr,
)
from meshnet.pki.verify import verify_ca, verify_peer, verify_renewal

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
EAST = Signer.create("east", now=NOW)
WEST = Signer.create("west", now=NOW)
KEY = generate_key()
CSR = make_csr(KEY, "n1")
LIFETIME = timedelta(days=7)


def issue(
    profile: Profile = Profile.MIRROR, *, signer: Signer = EAST, cluster: str = "east"
) -> Certificate:
    return signer.sign(CSR, Subject(profile=profile, cluster=cluster, node="n1"), now=NOW)


def test_peer_of_the_ca_asked_for_is_believed() -> None:
    certificate = issue()

    assert verify_peer(certificate, EAST.mesh.certificate, Usage.CLIENT, now=NOW) is certificate


def test_peer_that_another_cluster_signed_is_refused_though_it_bears_the_right_name() -> None:
    forged = issue(signer=WEST, cluster="east")

    with pytest.raises(PermissionRefused) as refusal:
        verify_peer(forged, EAST.mesh.certificate, Usage.CLIENT, now=NOW)

    assert str(refusal.value) == ("certificate of 'n1' is not signed by CN=meshnet east mesh CA")


def test_ca_with_the_same_name_but_another_key_is_another_ca() -> None:
    twin = Signer.create("east", now=NOW)

    with pytest.raises(PermissionRefused, match=r"is not signed by"):
        verify_peer(issue(signer=twin), EAST.mesh.certificate, Usage.CLIENT, now=NOW)


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        (
            NOW + LIFETIME + timedelta(seconds=1),
            "certificate of 'n1' expired at 2026-05-08T12:00:00Z",
        ),
        (
            NOW - timedelta(minutes=6),
            "certificate of 'n1' is valid from 2026-05-01T11:55:00Z only: check the clocks",
        ),
    ],
)
def test_peer_is_refused_outside_its_time(moment: datetime, message: str) -> None:
    with pytest.raises(PermissionRefused) as refusal:
        verify_peer(issue(), EAST.mesh.certificate, Usage.CLIENT, now=moment)

    assert str(refusal.value) == message


def test_gateway_certificate_cannot_act_as_a_client() -> None:
    with pytest.raises(PermissionRefused, match=r"^certificate of 'n1' is not meant for a client$"):
        verify_peer(issue(Profile.GATEWAY), EAST.mesh.certificate, Usage.CLIENT, now=NOW)


def renew(certificate: Certificate, *, after: timedelta, csr: bytes = CSR) -> Certificate:
    request = SigningRequest.parse(csr)
    return verify_renewal(certificate, request, EAST.mesh.certificate, now=NOW + after)


@pytest.mark.parametrize("after", [timedelta(), LIFETIME, 2 * LIFETIME])
def test_holder_may_renew_until_one_lifetime_after_expiry(after: timedelta) -> None:
    certificate = issue()

    assert renew(certificate, after=after) is certificate


def test_renewal_later_than_one_lifetime_after_expiry_is_refused() -> None:
    with pytest.raises(PermissionRefused) as refusal:
        renew(issue(), after=2 * LIFETIME + timedelta(seconds=1))

    assert str(refusal.value) == (
        "certificate of 'n1' expired at 2026-05-08T12:00:00Z, too long ago to renew: join again"
    )


def test_renewal_by_somebody_without_the_key_is_refused() -> None:
    with pytest.raises(PermissionRefused, match=r"cannot be renewed for another key: join again$"):
        renew(issue(), after=timedelta(), csr=make_csr(generate_key(), "n1"))


def test_renewal_of_a_certificate_of_another_cluster_is_refused() -> None:
    with pytest.raises(PermissionRefused, match=r"is not signed by CN=meshnet east mesh CA$"):
        renew(issue(signer=WEST), after=timedelta())


def test_ca_of_another_cluster_is_accepted_when_it_is_one() -> None:
    assert verify_ca(WEST.mesh.certificate.pem, now=NOW).pem == WEST.mesh.certificate.pem


def test_second_ca_hidden_behind_the_first_is_cut_off() -> None:
    both = WEST.mesh.certificate.pem + EAST.mesh.certificate.pem

    assert verify_ca(both, now=NOW).pem == WEST.mesh.certificate.pem


def test_leaf_is_no_ca() -> None:
    with pytest.raises(Refused, match=r"^certificate CN=n1 is not that of a CA$"):
        verify_ca(issue().pem, now=NOW)


def test_ca_that_another_ca_stands_above_is_refused() -> None:
    """An intermediate would be worth whatever the CA above it signs next."""
    ours = WEST.mesh.certificate.parsed
    intermediate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "below")]))
        .issuer_name(ours.subject)
        .public_key(load_key(KEY).public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(load_key(WEST.mesh.key_pem()), hashes.SHA256())
    )

    with pytest.raises(Refused, match=r"^CA certificate CN=below is not self-signed$"):
        verify_ca(Certificate(intermediate).pem, now=NOW)


def test_expired_ca_is_refused() -> None:
    with pytest.raises(Refused, match=r"^CA certificate CN=meshnet west mesh CA expired at "):
        verify_ca(WEST.mesh.certificate.pem, now=NOW + timedelta(days=3651))
