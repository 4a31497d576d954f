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
from meshnet.errors import PermissionRefused, PoisonedKey, Refused
from meshnet.kvstore.api import KV
from meshnet.model import names
from meshnet.model.authority import Issued, Revocation
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
from meshnet.pki.verify import choose_issuer, verify_renewal
from meshnet.registry import schema, trust_codec
from meshnet.registry.store import get_item, list_items

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
        signer: Callable[[], Signer],
        tokens: Tokens,
        contacts: Callable[[], Contacts],
        *,
        lifetime: Callable[[], timedelta] = lambda: LIFETIME,
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
        signed = {profile: self._sign(request, profile) for profile in sorted(NODE_PROFILES)}
        await self._tokens.use(token, claimant)
        for certificate in signed.values():
            await record(self._kv, certificate, now=self._clock())
        certificates = {profile: each.pem.decode() for profile, each in signed.items()}
        return self._reply(certificates, keys=token.record.signer)

    async def renew(self, request: RenewRequest) -> RenewReply:
        """The same certificate once more, for the same key and the same names.

        Raises:
            Refused: not ours, another key, expired for longer than it lived, revoked.
        """
        current = Certificate.parse(request.certificate.encode())
        csr = SigningRequest.parse(request.request.encode())
        subject = current.subject
        signer = self._signer()
        issuer = choose_issuer(current, signer.trusted(subject.profile.authority))
        verify_renewal(current, csr, issuer, now=self._clock())
        await self._check_revoked(subject.node, current.issued_at)
        renewed = signer.issuer(subject.profile).sign(
            csr, subject, lifetime=self._lifetime(), now=self._clock()
        )
        await record(self._kv, renewed, now=self._clock())
        return RenewReply(
            certificate=renewed.pem.decode(),
            signers=self._contacts().signers,
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
        revocation = await find_revocation(self._kv, node)
        if revocation is not None and issued_at <= revocation.at:
            raise PermissionRefused(f"node {node!r} was revoked: join again with a new token")

    def _sign(self, request: JoinNodeRequest, profile: Profile) -> Certificate:
        subject = Subject.of(profile, self._cluster.name, request.node, request.addresses)
        csr = request.requests[profile].encode()
        return self._signer().sign(csr, subject, lifetime=self._lifetime(), now=self._clock())

    def _reply(self, certificates: dict[Profile, str], *, keys: bool) -> JoinNodeReply:
        given = tuple(Authority) if keys else ()
        signer, contacts = self._signer(), self._contacts()
        return JoinNodeReply(
            cluster=self._cluster,
            certificates=certificates,
            authorities={
                which: b"".join(ca.pem for ca in signer.trusted(which)).decode()
                for which in Authority
            },
            authority_keys={which: signer.authority(which).key_pem().decode() for which in given},
            etcd_endpoints=contacts.etcd_endpoints,
            signers=contacts.signers,
        )


async def record(kv: KV, certificate: Certificate, *, now: datetime) -> None:
    """Remember what was issued, so that it can be called back; forget what has run out."""
    subject = certificate.subject
    prefix = f"{schema.ISSUED}{subject.node}/"
    for known in await list_items(kv, prefix, trust_codec.decode_issued, _told_elsewhere):
        if known.item.not_after < now:
            await kv.delete(known.key)
    issued = Issued(profile=subject.profile.value, not_after=certificate.not_after)
    key = schema.issued(subject.node, f"{certificate.serial:x}")
    await kv.put(key, trust_codec.encode_issued(issued))


async def find_revocation(kv: KV, node: str) -> Revocation | None:
    found = await get_item(kv, schema.revoked(node), trust_codec.decode_revocation)
    return None if found is None else found.item


async def forget_issued(kv: KV, node: str) -> None:
    """The node leaves by itself, and its keys with it: there is nothing to call back."""
    for pair in (await kv.list(f"{schema.ISSUED}{node}/")).pairs:
        await kv.delete(pair.key)


async def revoke(kv: KV, node: str, *, now: datetime | None = None) -> Revocation:
    """What was issued to that node until now is worth nothing; any node may say so.

    Signers renew it no more, and put its numbers on the lists that etcd and the gateways of
    the mesh refuse by.
    """
    serials: dict[str, list[str]] = {which.value: [] for which in Authority}
    prefix = f"{schema.ISSUED}{node}/"
    for known in await list_items(kv, prefix, trust_codec.decode_issued, _told_elsewhere):
        authority = Profile(known.item.profile).authority
        serials[authority.value].append(schema.last_of(known.key))
    before = await find_revocation(kv, node)
    for which, numbers in (before.serials if before else {}).items():
        serials[which] = [*dict.fromkeys((*serials[which], *numbers))]
    revocation = Revocation(
        at=now or datetime.now(UTC),
        serials={which: tuple(numbers) for which, numbers in serials.items()},
    )
    await kv.put(schema.revoked(node), trust_codec.encode_revocation(revocation))
    return revocation


def _told_elsewhere(_: PoisonedKey) -> None:
    """Whoever may write etcd may write nonsense there: it calls nothing back."""


def _key_of(csr: str) -> str:
    return SigningRequest.parse(csr.encode()).key_fingerprint
