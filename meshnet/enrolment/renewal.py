"""Certificates are renewed at two thirds of their life, by whoever holds the CA keys."""

from __future__ import annotations

from datetime import datetime, timedelta

from meshnet.enrolment.client import EnrolmentClient
from meshnet.enrolment.messages import RenewRequest
from meshnet.errors import Refused
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import LIFETIME, Authority, Certificate, Profile, make_csr
from meshnet.pki.store import PkiStore
from meshnet.pki.verify import choose_issuer, verify_peer


async def renew_due(
    pki: PkiStore,
    cluster: str,
    *,
    lifetime: timedelta = LIFETIME,
    now: datetime | None = None,
) -> tuple[Profile, ...]:
    """Renew what is due and answer what was renewed; call it every few minutes.

    A signer signs for itself, `lifetime` long. Another node asks one, also after its
    certificates have expired, for as long as they were valid.

    Raises:
        Unreachable: no signer answers; what was renewed before stays renewed.
        Refused: revoked, or away for too long.
    """
    due = pki.due(now, lifetime=lifetime)
    if not due:
        return ()
    if pki.ca_key_path(Authority.MESH).exists():
        signer = Signer.load(pki)
        for profile in due:
            signer.enrol(pki, _held(pki, profile).subject, lifetime=lifetime)
        return due
    client = EnrolmentClient(cluster, pki.signers(), pki.authorities(Authority.MESH))
    for profile in due:
        await _renew(pki, client, profile)
    return due


async def _renew(pki: PkiStore, client: EnrolmentClient, profile: Profile) -> None:
    current = _held(pki, profile)
    csr = make_csr(pki.ensure_key(profile), current.node)
    reply = await client.renew(RenewRequest(certificate=current.pem.decode(), request=csr.decode()))
    renewed = Certificate.parse(reply.certificate.encode())
    authority = choose_issuer(renewed, pki.authorities(profile.authority))
    for usage in profile.usages:
        verify_peer(renewed, authority, usage)
    if (renewed.key_fingerprint, renewed.uris) != (current.key_fingerprint, current.uris):
        raise Refused(f"signer answers with another certificate than this node's {profile}")
    pki.save_certificate(profile, renewed.pem)
    pki.save_signers(reply.signers)


def _held(pki: PkiStore, profile: Profile) -> Certificate:
    certificate = pki.certificate(profile)
    assert certificate is not None, f"{profile} is due, so it exists"
    return certificate
