"""`meshnet cluster join` as a plan: everything is looked at before anything is written."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import attrs

from meshnet.bootstrap.init import Say, require_no_cluster
from meshnet.bootstrap.meeting import Meeting, meet
from meshnet.config import Paths
from meshnet.dataplane import artifact
from meshnet.enrolment.client import EnrolmentClient
from meshnet.enrolment.joining import enrol_node
from meshnet.enrolment.messages import JoinNodeReply
from meshnet.enrolment.tunnel import TunnelSide, probe
from meshnet.errors import MeshnetError
from meshnet.host import capability, networks
from meshnet.model.check import Check, clean
from meshnet.model.cluster import Cluster
from meshnet.model.token import TokenKind
from meshnet.netlink.api import Netlink
from meshnet.pki.store import PkiStore
from meshnet.pki.token import JoinToken


@attrs.frozen(kw_only=True)
class Enlisting:
    """What the operator asked for."""

    token: JoinToken
    node: str
    underlay: str | None


@attrs.frozen(kw_only=True)
class Plan:
    """What a join would do, and whether it may."""

    checks: tuple[Check, ...]
    meeting: Meeting | None = None
    """None: this host has no interface for an underlay."""
    reply: JoinNodeReply | None = None
    """None: no signer could be asked."""

    @property
    def cluster(self) -> Cluster | None:
        return self.reply.cluster if self.reply else None


async def make_plan(
    wanted: Enlisting, paths: Paths, netlink: Netlink, *, say: Say, strict: bool
) -> Plan:
    """Look at everything; the token stays good and nothing is written.

    Args:
        strict: the first lack is raised as what it is, for a join that would end there;
            else it is a line of the plan, and the rest is looked at too.

    Raises:
        TokenRefused: the token is for `mesh join`.
        CapabilityMissing: not root, so nothing can be looked at.
    """
    wanted.token.require(TokenKind.NODE)
    capability.require_root()
    checks = [_kernel(strict), _host(paths, strict)]
    await asyncio.to_thread(artifact.find)  # seconds, where nobody has compiled this version
    try:
        meeting = await meet(netlink, wanted.token, wanted.underlay)
    except MeshnetError as error:
        if strict:
            raise
        return Plan(checks=(*checks, Check.failed("underlay", str(error))))
    checks.append(meeting.check)
    say(f"underlay is {meeting.check.evidence}")
    say(f"asking cluster {wanted.token.cluster} whether {wanted.node} may join")
    try:
        signer = EnrolmentClient.of(wanted.token)
        reply = await ask(wanted, meeting, PkiStore(paths.pki), signer, plan=True)
    except MeshnetError as error:
        if strict:
            raise
        checks.append(Check.failed("signer", str(error)))
        return Plan(checks=tuple(checks), meeting=meeting)
    checks += [_certificates(wanted.token), *reply.checks]
    if clean(checks):
        checks += await _probe_tunnel(wanted, meeting, reply, signer.answering)
    return Plan(checks=tuple(checks), meeting=meeting, reply=reply)


async def ask(
    wanted: Enlisting, meeting: Meeting, store: PkiStore, signer: EnrolmentClient, *, plan: bool
) -> JoinNodeReply:
    """Ask a signer; what it answers is checked before any of it is kept."""
    known = await asyncio.to_thread(networks.read)
    return await enrol_node(
        wanted.token,
        store,
        node=wanted.node,
        addresses=meeting.underlay.addresses,
        networks=known.on_link,
        routes=known.routed,
        plan=plan,
        signer=signer,
    )


async def _probe_tunnel(
    wanted: Enlisting, meeting: Meeting, reply: JoinNodeReply, signer: EnrolmentClient
) -> tuple[Check, ...]:
    """Only with who is fit to join otherwise. The signer that answered the plan looks too."""
    if reply.tunnel is None:
        return (Check.failed("tunnel-port", "the signer is too old to look: upgrade it"),)
    underlay = meeting.underlay
    side = TunnelSide(
        ifname=underlay.ifname,
        addresses=underlay.addresses,
        mtu=underlay.mtu,
        sends=reply.cluster.tunnel.value,
    )
    return await probe(side, reply.tunnel, wanted.token.secret, signer.probe_tunnel)


def _kernel(strict: bool) -> Check:
    try:
        capability.require_all()
    except MeshnetError as error:
        if strict:
            raise
        return Check.failed("kernel", str(error))
    return Check(
        check="kernel",
        ok=True,
        evidence=f"Linux {os.uname().release}: tcx links, bpffs, cgroup v2, capabilities",
    )


def _host(paths: Paths, strict: bool) -> Check:
    try:
        require_no_cluster(paths)
    except MeshnetError as error:
        if strict:
            raise
        return Check.failed("host", str(error))
    host = Path("/proc/sys/kernel/hostname").read_text().strip()
    return Check(check="host", ok=True, evidence=f"{host} is in no cluster")


def _certificates(token: JoinToken) -> Check:
    """It was seen by whoever got here: TLS, and the CAs that the signer named."""
    until = token.ca.not_after.strftime("%Y-%m-%d")
    return Check(
        check="certificates",
        ok=True,
        evidence=f"the signer proved itself to the token's CA ({token.ca.fingerprint[:12]}, good "
        f"until {until}) and names the same",
    )
