"""A new node's side of `cluster join`: ask, believe only what can be checked, keep."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from meshnet.enrolment.client import EnrolmentClient
from meshnet.enrolment.messages import JoinNodeReply, JoinNodeRequest
from meshnet.enrolment.nodes import NODE_PROFILES
from meshnet.errors import Refused
from meshnet.model import names
from meshnet.model.ability import Abilities
from meshnet.model.addressing import Address, Prefix
from meshnet.model.cluster import TunnelProtocol
from meshnet.model.token import TokenKind
from meshnet.pki.ca import CertificateAuthority, Signer
from meshnet.pki.certificate import (
    LIFETIME,
    Authority,
    Certificate,
    Profile,
    SigningRequest,
    Subject,
    generate_key,
    make_csr,
)
from meshnet.pki.store import PkiStore
from meshnet.pki.token import JoinToken
from meshnet.pki.verify import choose_issuer, verify_ca, verify_peer


async def enrol_node(
    token: JoinToken,
    pki: PkiStore,
    *,
    node: str,
    addresses: tuple[Address, ...],
    networks: tuple[Prefix, ...] = (),
    routes: tuple[Prefix, ...] = (),
    plan: bool = False,
    signer: EnrolmentClient | None = None,
    lifetime: timedelta = LIFETIME,
) -> JoinNodeReply:
    """Become a node of the token's cluster: certificates and CAs are in `pki` afterwards.

    The keys are written first, so a second try after a failure is the same claimant and
    the token still good for it. With `plan` nothing is written and nothing used up.
    `signer`: whom to ask; by default those whom the token names.

    Raises:
        TokenRefused, Refused: the signer's reason, or an answer that does not hold.
        Unreachable: no signer answers.
    """
    token.require(TokenKind.NODE)
    names.rfc1123_label("node", node)
    key_of = (lambda _: generate_key()) if plan else pki.ensure_key
    csrs = {profile: make_csr(key_of(profile), node) for profile in NODE_PROFILES}
    reply = await (signer or EnrolmentClient.of(token)).join_node(
        JoinNodeRequest(
            secret=token.secret,
            node=node,
            addresses=addresses,
            requests={profile: csr.decode() for profile, csr in csrs.items()},
            plan=plan,
            abilities=abilities_of_host(addresses),
            networks=networks,
            routes=routes,
        )
    )
    authorities = _check_authorities(token, reply)
    if plan:
        return reply
    certificates = {
        profile: Certificate.parse(reply.certificates.get(profile, "").encode()) for profile in csrs
    }
    for profile, certificate in certificates.items():
        subject = Subject.of(profile, token.cluster, node, addresses)
        _check_certificate(certificate, csrs[profile], subject, authorities)
    for profile, certificate in certificates.items():
        pki.save_certificate(profile, certificate.pem)
    for which, authority in authorities.items():
        pki.save_ca(which, b"".join(ca.pem for ca in authority))
    pki.save_signers(reply.signers)
    if reply.authority_keys:
        _become_signer(pki, reply, token.cluster, node, addresses, lifetime)
    return reply


def abilities_of_host(addresses: Iterable[Address]) -> Abilities:
    return Abilities(
        accepts=tuple(protocol.value for protocol in TunnelProtocol),
        families=tuple(sorted({address.version for address in addresses})),
        now=datetime.now(UTC),
    )


def _check_authorities(
    token: JoinToken, reply: JoinNodeReply
) -> dict[Authority, tuple[Certificate, ...]]:
    if (reply.cluster.name, reply.cluster.id) != (token.cluster, token.cluster_id):
        raise Refused(
            f"signer of cluster {token.cluster!r} answers for cluster {reply.cluster.name!r}"
        )
    authorities = {
        which: tuple(
            verify_ca(ca.pem)
            for ca in Certificate.parse_all(reply.authorities.get(which, "").encode())
        )
        for which in Authority
    }
    if token.ca.fingerprint not in [ca.fingerprint for ca in authorities[Authority.MESH]]:
        raise Refused(f"signer of cluster {token.cluster!r} names another mesh CA than the token")
    return authorities


def _check_certificate(
    certificate: Certificate,
    csr: bytes,
    subject: Subject,
    authorities: dict[Authority, tuple[Certificate, ...]],
) -> None:
    """What the signer sent must fit our key, and name us, before it replaces anything."""
    for usage in subject.profile.usages:
        issuer = choose_issuer(certificate, authorities[subject.profile.authority])
        verify_peer(certificate, issuer, usage)
    if certificate.key_fingerprint != SigningRequest.parse(csr).key_fingerprint:
        raise Refused(f"signer answers with a {subject.profile} certificate for another key")
    if certificate.subject != subject:
        raise Refused(f"signer answers with a certificate for {', '.join(certificate.uris)}")


def _become_signer(
    pki: PkiStore,
    reply: JoinNodeReply,
    cluster: str,
    node: str,
    addresses: tuple[Address, ...],
    lifetime: timedelta,
) -> None:
    for which in Authority:
        key = reply.authority_keys.get(which, "").encode()
        CertificateAuthority.from_pem(pki.ca(which), key)  # refuses one that is not its key
        pki.save_ca_keys(which, (key,))
    signer = Signer.load(pki)
    subject = Subject.of(Profile.ENROLMENT, cluster, node, addresses)
    signer.enrol(pki, subject, lifetime=lifetime)
