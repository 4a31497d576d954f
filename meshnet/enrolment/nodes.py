"""Who may be a node of this cluster: admits with a token, renews with a certificate.

Decides only; a connection that the token's CA has verified is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import attrs

from meshnet.enrolment.messages import (
    JoinNodeReply,
    JoinNodeRequest,
    RenewReply,
    RenewRequest,
)
from meshnet.enrolment.newcomer import Household, examine_node
from meshnet.enrolment.remotes import Remotes
from meshnet.enrolment.roster import abilities_of, live_nodes
from meshnet.enrolment.tokens import Tokens
from meshnet.errors import PermissionRefused, Refused
from meshnet.kvstore.api import KV
from meshnet.model import names
from meshnet.model.check import Check, demand
from meshnet.model.cluster import Cluster
from meshnet.model.token import TokenKind
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import (
    LIFETIME,
    Authority,
    Certificate,
    Profile,
    SigningRequest,
    Subject,
)
from meshnet.pki.verify import verify_renewal
from meshnet.registry import schema

NODE_PROFILES = frozenset({Profile.NODE, Profile.GATEWAY, Profile.MIRROR})
"""What every node gets. A signer makes the rest for itself."""


@attrs.frozen(kw_only=True)
class Contacts:
    """Where a new node finds the cluster; told again at every renewal."""

    etcd_endpoints: tuple[str, ...]
    signers: tuple[str, ...]


class NodeAdmission:
    def __init__(
        self,
        kv: KV,
        cluster: Cluster,
        signer: Signer,
        tokens: Tokens,
        contacts: Contacts,
        *,
        lifetime: timedelta = LIFETIME,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kv = kv
        self._cluster = cluster
        self._signer = signer
        self._tokens = tokens
        self._contacts = contacts
        self._lifetime = lifetime
        self._clock = clock

    async def join(self, request: JoinNodeRequest) -> JoinNodeReply:
        """Check, use the token up, and sign, in this order: a refusal costs no token.

        Raises:
            TokenRefused: unknown, expired, used by another, of the wrong kind.
            Refused: the name or an address is taken, or a request cannot be signed.
        """
        names.rfc1123_label("node", request.node)
        token = await self._tokens.find(request.secret, TokenKind.NODE)
        if request.requests.keys() != NODE_PROFILES:
            wanted = ", ".join(sorted(NODE_PROFILES))
            raise Refused(f"signing requests are wanted for {wanted}, and for nothing else")
        claimant = _key_of(request.requests[Profile.NODE])
        token.allow(claimant)
        checks = await self._examine(request, again=token.record.used_by == claimant)
        if request.plan:
            return attrs.evolve(self._reply({}, keys=False), checks=checks)
        demand(checks)
        certificates = {profile: self._sign(request, profile) for profile in sorted(NODE_PROFILES)}
        await self._tokens.use(token, claimant)
        return self._reply(certificates, keys=token.record.signer)

    async def renew(self, request: RenewRequest) -> RenewReply:
        """The same certificate once more, for the same key and the same names.

        Raises:
            Refused: not ours, another key, expired for longer than it lived, revoked.
        """
        current = Certificate.parse(request.certificate.encode())
        csr = SigningRequest.parse(request.request.encode())
        subject = current.subject
        authority = self._signer.authority(subject.profile.authority)
        verify_renewal(current, csr, authority.certificate, now=self._clock())
        await self._check_revoked(subject.node, current.issued_at)
        renewed = authority.sign(csr, subject, lifetime=self._lifetime, now=self._clock())
        return RenewReply(
            certificate=renewed.pem.decode(),
            signers=self._contacts.signers,
        )

    async def _examine(self, request: JoinNodeRequest, *, again: bool) -> tuple[Check, ...]:
        nodes = await live_nodes(self._kv, self._cluster.name)
        household = Household(
            cluster=self._cluster,
            abilities=abilities_of(self._cluster, nodes, now=self._clock()),
            nodes=nodes,
            remotes=await Remotes(self._kv).list(),
        )
        return examine_node(household, request, again=again)

    async def _check_revoked(self, node: str, issued_at: datetime) -> None:
        pair = await self._kv.get(schema.revoked(node))
        if pair is not None and issued_at <= datetime.fromisoformat(pair.value.decode()):
            raise PermissionRefused(f"node {node!r} was revoked: join again with a new token")

    def _sign(self, request: JoinNodeRequest, profile: Profile) -> str:
        subject = Subject.of(profile, self._cluster.name, request.node, request.addresses)
        csr = request.requests[profile].encode()
        signed = self._signer.sign(csr, subject, lifetime=self._lifetime, now=self._clock())
        return signed.pem.decode()

    def _reply(self, certificates: dict[Profile, str], *, keys: bool) -> JoinNodeReply:
        given = tuple(Authority) if keys else ()
        return JoinNodeReply(
            cluster=self._cluster,
            certificates=certificates,
            authorities={
                which: self._signer.authority(which).certificate.pem.decode() for which in Authority
            },
            authority_keys={
                which: self._signer.authority(which).key_pem().decode() for which in given
            },
            etcd_endpoints=self._contacts.etcd_endpoints,
            signers=self._contacts.signers,
        )


async def revoke(kv: KV, node: str, *, now: datetime | None = None) -> None:
    """Renew nothing any more that was issued to that node until now; any node may say so."""
    stamp = (now or datetime.now(UTC)).isoformat()
    await kv.put(schema.revoked(node), stamp.encode())


def _key_of(csr: str) -> str:
    return SigningRequest.parse(csr.encode()).key_fingerprint
