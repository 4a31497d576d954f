"""The inviting side of `mesh join`: another cluster has a token of ours.

    joiner                                  inviter
      │ prepare(secret, what I am)            │ checks; stores the joiner, pending
      │ ◀── what the inviter is ──            │
      │ checks; stores the inviter, pending   │
      │ reads a key through its gateways ───▶ │ they know the joiner by now
      │ commit(secret) ─────────────────────▶ │ reads a key through the joiner's gateways;
      │                                       │ commits its half
      │ commits its half                      │

Any failure: the joiner says `abort` and removes its half; what is never said expires with
the lease that a pending half hangs on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from meshnet.enrolment.candidate import Neighbourhood, as_remote, examine
from meshnet.enrolment.messages import JoinMeshReply, JoinMeshRequest, MeshMember, Nothing
from meshnet.enrolment.remotes import Remotes
from meshnet.enrolment.roster import GatewaysOf, abilities_of, gateways_of, live_nodes
from meshnet.enrolment.tokens import HeldToken, Tokens
from meshnet.errors import Conflict, Refused, TokenRefused
from meshnet.kvstore.api import KV
from meshnet.model.check import Check, demand
from meshnet.model.cluster import Cluster
from meshnet.model.remote import RemoteState
from meshnet.model.token import TokenKind
from meshnet.pki.certificate import Authority
from meshnet.pki.store import PkiStore
from meshnet.pki.verify import verify_ca

Probe = Callable[[MeshMember], Awaitable[tuple[Check, ...]]]
"""Reads a key through each gateway of a member, over our mirror certificate."""


class Introduction:
    """What our cluster says about itself, and what it holds a candidate against."""

    def __init__(
        self, kv: KV, cluster: Cluster, pki: PkiStore, gateways: GatewaysOf = gateways_of
    ) -> None:
        self._kv = kv
        self._cluster = cluster
        self._pki = pki
        self._gateways = gateways

    async def neighbourhood(self) -> Neighbourhood:
        nodes = await live_nodes(self._kv, self._cluster.name)
        return Neighbourhood(
            cluster=self._cluster,
            mesh_ca=self._pki.authorities(Authority.MESH)[0],
            changing=len(self._pki.authorities(Authority.MESH)) > 1,
            abilities=abilities_of(self._cluster, nodes),
            nodes=nodes,
            remotes=await Remotes(self._kv).list(),
        )

    async def member(self) -> MeshMember:
        nodes = await live_nodes(self._kv, self._cluster.name)
        return MeshMember(
            name=self._cluster.name,
            id=self._cluster.id,
            mesh_ca=self._pki.authorities(Authority.MESH)[0].pem.decode(),
            pod_cidrs=self._cluster.pod_cidrs,
            gateways=self._gateways(nodes),
            abilities=abilities_of(self._cluster, nodes),
        )


class Inviter:
    """Decides over requests to join; one instance per signer."""

    def __init__(
        self, tokens: Tokens, remotes: Remotes, introduction: Introduction, probe: Probe
    ) -> None:
        self._tokens = tokens
        self._remotes = remotes
        self._introduction = introduction
        self._probe = probe

    async def plan(self, request: JoinMeshRequest) -> JoinMeshReply:
        """The same checks as `prepare`; nothing is stored and no token used up.

        Raises:
            TokenRefused: whoever has no good token hears nothing of us.
        """
        await self._token(request)
        checks = examine(await self._introduction.neighbourhood(), request.member)
        return JoinMeshReply(member=await self._introduction.member(), checks=checks)

    async def prepare(self, request: JoinMeshRequest) -> JoinMeshReply:
        """Check, use the token up and store the joiner as pending, in one txn.

        Raises:
            TokenRefused: unknown, expired, used, of another kind, for another cluster.
            Refused: the joiner collides with us or with another remote.
        """
        token, claimant = await self._admit(request)
        compare, writes = token.consume(claimant)
        pending = as_remote(request.member, RemoteState.PENDING)
        await self._remotes.hold(pending, when=(compare,), then=writes)
        try:
            # now that it is written, against whoever came in at the same time
            demand(examine(await self._introduction.neighbourhood(), request.member))
        except Refused:
            await self._remotes.drop(pending)
            raise
        return JoinMeshReply(member=await self._introduction.member())

    async def commit(self, request: JoinMeshRequest) -> JoinMeshReply:
        """Reach the joiner through its gateways, then make it a remote for good.

        Raises:
            Refused: no gateway of the joiner answers as it should.
            Conflict: its pending half is gone.
        """
        await self._claimed(request)
        demand_one(request.member, await self._probe(request.member))
        await self._remotes.commit(as_remote(request.member, RemoteState.COMMITTED))
        return JoinMeshReply(member=await self._introduction.member())

    async def abort(self, request: JoinMeshRequest) -> Nothing:
        """Take back what this token has made here, committed or not."""
        token = await self._claimed(request)
        joiner = as_remote(request.member, RemoteState.PENDING)
        await self._remotes.drop(joiner, committed_since=token.revision)
        return Nothing()

    async def _admit(self, request: JoinMeshRequest) -> tuple[HeldToken, str]:
        token, claimant = await self._token(request)
        demand(examine(await self._introduction.neighbourhood(), request.member))
        return token, claimant

    async def _token(self, request: JoinMeshRequest) -> tuple[HeldToken, str]:
        token = await self._tokens.find(request.secret, TokenKind.MESH)
        wanted = token.record.for_cluster
        if wanted not in (None, request.member.name):
            raise TokenRefused(
                f"token {token.record.id} is for cluster {wanted!r}, "
                f"not for {request.member.name!r}"
            )
        claimant = _claimant(request.member)
        return token.allow(claimant), claimant

    async def _claimed(self, request: JoinMeshRequest) -> HeldToken:
        """The token, which this joiner must have prepared with."""
        token = await self._tokens.find(request.secret, TokenKind.MESH)
        token.allow(_claimant(request.member))
        if token.record.used_by is None:
            raise Conflict(f"cluster {request.member.name!r} has not prepared: join again")
        return token


def demand_one(member: MeshMember, checks: tuple[Check, ...]) -> None:
    """Raises Refused unless at least one gateway of the member answered."""
    if not any(check.ok for check in checks):
        reasons = "; ".join(check.text for check in checks)
        raise Refused(f"no gateway of cluster {member.name!r} can be reached: {reasons}")


def _claimant(member: MeshMember) -> str:
    return verify_ca(member.mesh_ca.encode()).fingerprint
