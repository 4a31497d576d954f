"""CA keys, from one signer to another: over the enrolment port, to who proves to be a signer.

Proof: the certificate of its own enrolment port, which only a holder of the CA keys gets, and
a signing request by that certificate's key over a challenge of ours, good once.
"""

from __future__ import annotations

import collections
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime

from meshnet.enrolment.client import EnrolmentClient
from meshnet.enrolment.messages import ChallengeReply, KeysReply, KeysRequest, Nothing
from meshnet.errors import PermissionRefused
from meshnet.pki.ca import holders
from meshnet.pki.certificate import Authority, Certificate, Profile, SigningRequest, Usage, make_csr
from meshnet.pki.store import PkiStore
from meshnet.pki.verify import choose_issuer, verify_peer

OPEN_CHALLENGES = 32

Banned = Callable[[str, datetime], Awaitable[bool]]
"""Whether what was issued to a node at that time was called back."""


class KeyCustody:
    """The signer that has the keys."""

    def __init__(self, cluster: str, pki: PkiStore, banned: Banned) -> None:
        self._cluster = cluster
        self._pki = pki
        self._banned = banned
        self._challenges: collections.deque[str] = collections.deque(maxlen=OPEN_CHALLENGES)

    async def challenge(self, _: Nothing) -> ChallengeReply:
        challenge = secrets.token_hex(16)
        self._challenges.append(challenge)
        return ChallengeReply(challenge=challenge)

    async def hand_over(self, request: KeysRequest) -> KeysReply:
        """Raises PermissionRefused: not a signer of ours, or no answer to our challenge."""
        certificate = Certificate.parse(request.certificate.encode())
        csr = SigningRequest.parse(request.request.encode())
        trusted = self._pki.authorities(Authority.MESH)
        verify_peer(certificate, choose_issuer(certificate, trusted), Usage.SERVER)
        subject = certificate.subject
        if (subject.profile, subject.cluster) != (Profile.ENROLMENT, self._cluster):
            raise PermissionRefused(f"certificate of {subject.node!r} is not that of a signer")
        if csr.key_fingerprint != certificate.key_fingerprint:
            raise PermissionRefused(f"signer {subject.node!r} does not hold its certificate's key")
        if csr.common_name not in self._challenges:
            raise PermissionRefused(f"signer {subject.node!r} answers no challenge of ours")
        self._challenges.remove(csr.common_name)
        if await self._banned(subject.node, certificate.issued_at):
            raise PermissionRefused(
                f"node {subject.node!r} was revoked: join again with a new token"
            )
        return KeysReply(
            keys={
                which: tuple(key.decode() for key in self._pki.ca_keys(which))
                for which in Authority
            }
        )


async def fetch_keys(pki: PkiStore, cluster: str, endpoints: tuple[str, ...]) -> None:
    """Take over the keys of every CA that is trusted, from whichever signer has them.

    Raises:
        Unreachable: no other signer answers.
        PermissionRefused: this node is no signer to them.
    """
    client = EnrolmentClient(cluster, endpoints, pki.authorities(Authority.MESH))
    challenge = (await client.challenge()).challenge
    certificate, key = pki.pair(Profile.ENROLMENT)
    request = KeysRequest(
        certificate=certificate.decode(), request=make_csr(key, challenge).decode()
    )
    reply = await client.answering.fetch_keys(request)
    for which in Authority:
        offered = tuple(pem.encode() for pem in reply.keys.get(which, ()))
        known = tuple(dict.fromkeys((*pki.ca_keys(which), *offered)))
        held = holders(pki.authorities(which), known)
        pki.save_ca_keys(which, tuple(authority.key_pem() for authority in held))
