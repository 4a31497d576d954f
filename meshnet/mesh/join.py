"""The joining side of `mesh join`, and `mesh leave`. The other side is enrolment.inviter.

Both clusters know each other afterwards, or neither does: a half that is left over by a
crash hangs on a lease of two minutes.
"""

from __future__ import annotations

import attrs
import structlog

from meshnet.enrolment.candidate import as_remote, examine, recognise
from meshnet.enrolment.client import EnrolmentClient
from meshnet.enrolment.handshake import check_gateways
from meshnet.enrolment.inviter import Introduction, demand_one
from meshnet.enrolment.messages import JoinMeshRequest, MeshMember, TunnelEnd
from meshnet.enrolment.probe import PATIENCE_S, GatewayProbe
from meshnet.enrolment.remotes import Remotes
from meshnet.enrolment.roster import GatewaysOf, gateways_of
from meshnet.enrolment.tunnel import TunnelSide, probe
from meshnet.errors import MeshnetError, NotFound, Refused
from meshnet.kvstore.api import KV
from meshnet.model.check import Check, clean, demand, merged
from meshnet.model.cluster import Cluster
from meshnet.model.remote import RemoteState
from meshnet.model.token import TokenKind
from meshnet.pki.store import PkiStore
from meshnet.pki.token import JoinToken
from meshnet.pki.verify import verify_ca


@attrs.frozen(kw_only=True)
class JoinReport:
    """What `mesh join` found out about the other cluster."""

    cluster: str
    id: int
    checks: tuple[Check, ...]
    joined: bool


async def join(
    text: str,
    *,
    kv: KV,
    cluster: Cluster,
    pki: PkiStore,
    tunnel: TunnelSide,
    plan: bool = False,
    gateways: GatewaysOf = gateways_of,
    patience_s: float = PATIENCE_S,
) -> JoinReport:
    """Join the mesh of the cluster that made the token.

    With `plan` both sides check and nothing is stored, and a failed check is in the report.

    Args:
        kv, cluster, pki: our own etcd, configuration and PKI directory.
        tunnel: where this node's tunnel ends; it is tried with the other's signer.
        gateways: where the gateways of our nodes are; the usual ports unless told.
        patience_s: how long the other's gateways have to hear of us and answer.

    Raises:
        TokenRefused: truncated, of the wrong kind, expired, used, for another cluster.
        Refused: the clusters collide, or no gateway of one can be reached by the other.
        Unreachable: no signer of the other cluster answers, or our own etcd does not.
    """
    token = JoinToken.decode(text).require(TokenKind.MESH)
    joining = _Joining(
        token,
        EnrolmentClient.of(token),
        Introduction(kv, cluster, pki, gateways),
        Remotes(kv),
        GatewayProbe(pki, patience_s=patience_s),
        tunnel,
    )
    return await (joining.plan() if plan else joining.run())


async def leave(cluster: str, *, kv: KV) -> None:
    """Forget a remote: our gateways cut it off at once, the leader drains its mirror.

    The other cluster is not asked: it sees itself refused until it leaves us too.
    Raises NotFound when there is no such remote.
    """
    if not await Remotes(kv).remove(cluster):
        raise NotFound(f"cluster {cluster!r} is not in the mesh: see `meshnet mesh status`")


@attrs.frozen
class _Joining:
    """One attempt."""

    token: JoinToken
    signer: EnrolmentClient
    introduction: Introduction
    remotes: Remotes
    probe: GatewayProbe
    tunnel: TunnelSide

    async def plan(self) -> JoinReport:
        """The first look needs no connection, and the secret is only sent if it is fine."""
        checks = await self._recognise()
        if clean(checks):
            reply = await self.signer.plan_mesh(await self._request())
            member = self._same(reply.member)
            ours = examine(await self.introduction.neighbourhood(), member)
            if clean(ours):
                ours += (await check_gateways(member),)
            checks = merged(ours, reply.checks)
            if clean(checks):
                checks += await self._probe_tunnel(reply.tunnel)
        return self._report(checks, joined=False)

    async def _probe_tunnel(self, end: TunnelEnd | None) -> tuple[Check, ...]:
        """Between this node and the signer that answered the plan."""
        if end is None:
            return (Check.failed("tunnel-port", "the signer is too old to look: upgrade it"),)
        return await probe(self.tunnel, end, self.token.secret, self.signer.answering.probe_tunnel)

    async def run(self) -> JoinReport:
        """Everything is looked at first; only then does either side write anything."""
        demand((await self.plan()).checks)
        request = await self._request()
        reply = await self.signer.prepare_mesh(request)
        try:
            return await self._complete(request, reply.member)
        except BaseException:
            await self._undo(request)
            raise

    async def _complete(self, request: JoinMeshRequest, answered: MeshMember) -> JoinReport:
        member = self._same(answered)
        checks = examine(await self.introduction.neighbourhood(), member)
        demand(checks)
        await self.remotes.hold(as_remote(member, RemoteState.PENDING))
        probes = await self.probe(member)
        demand_one(member, probes)
        await self.signer.commit_mesh(request)
        await self.remotes.commit(as_remote(member, RemoteState.COMMITTED))
        return self._report((*checks, *probes), joined=True)

    async def _undo(self, request: JoinMeshRequest) -> None:
        """Both halves away. Whoever cannot be told loses its half with the lease."""
        log = structlog.get_logger(component="mesh", remote=self.token.cluster)
        try:
            theirs = await self.remotes.find(self.token.cluster)
            if theirs is not None:
                await self.remotes.drop(theirs.remote)
            await self.signer.abort_mesh(request)
        except MeshnetError as error:
            log.warning("join not undone, its halves expire by themselves", error=str(error))

    async def _recognise(self) -> tuple[Check, ...]:
        """What the token alone tells, against what we are."""
        member = MeshMember(
            name=self.token.cluster,
            id=self.token.cluster_id,
            mesh_ca=self.token.ca.pem.decode(),
            pod_cidrs=(),
            gateways=(),
        )
        return recognise(await self.introduction.neighbourhood(), member)

    async def _request(self) -> JoinMeshRequest:
        ours = await self.introduction.member()
        if not ours.gateways:
            raise Refused(f"cluster {ours.name!r} has no live node: start an agent first")
        return JoinMeshRequest(secret=self.token.secret, member=ours)

    def _same(self, member: MeshMember) -> MeshMember:
        """The member, if it is the cluster that made the token."""
        said = (member.name, member.id, verify_ca(member.mesh_ca.encode()).fingerprint)
        if said != (self.token.cluster, self.token.cluster_id, self.token.ca.fingerprint):
            raise Refused(
                f"signer of cluster {self.token.cluster!r} answers as cluster {member.name!r} "
                f"with id {member.id}"
            )
        return member

    def _report(self, checks: tuple[Check, ...], *, joined: bool) -> JoinReport:
        return JoinReport(
            cluster=self.token.cluster, id=self.token.cluster_id, checks=checks, joined=joined
        )
