"""`meshnet cluster join`: one more node of a cluster that gave us a token.

All or nothing on this host. The token stays good for this node until it expires: its key is
on disk before the token is used, so a second try is the same claimant.
"""

from __future__ import annotations

import asyncio
import contextlib

import attrs

from meshnet import config
from meshnet.bootstrap import readiness, sweep
from meshnet.bootstrap.agent_process import for_this_host
from meshnet.bootstrap.init import Say, open_etcd, require_no_cluster
from meshnet.bootstrap.readiness import Missing
from meshnet.config import EtcdSettings, Paths, Settings
from meshnet.dataplane import artifact
from meshnet.enrolment.joining import enrol_node
from meshnet.enrolment.messages import JoinNodeReply
from meshnet.host import capability
from meshnet.model.cluster import Cluster
from meshnet.model.kernel import Underlay
from meshnet.model.token import TokenKind
from meshnet.netlink.rtnl import Rtnl
from meshnet.pki.certificate import Authority, Profile
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
    """What a join would do; nothing was changed."""

    cluster: Cluster
    underlay: Underlay
    etcd_endpoints: tuple[str, ...]


async def plan_join(wanted: Enlisting, paths: Paths, *, say: Say) -> Plan:
    """Check everything that can be checked without using the token up.

    Raises: as `join_cluster`.
    """
    underlay = await _survey(wanted, paths)
    say(f"underlay is {underlay.ifname} ({', '.join(map(str, underlay.addresses))})")
    say(f"asking cluster {wanted.token.cluster} whether {wanted.node} may join")
    reply = await _enrol(wanted, underlay, PkiStore(paths.pki), plan=True)
    return Plan(cluster=reply.cluster, underlay=underlay, etcd_endpoints=reply.etcd_endpoints)


async def join_cluster(wanted: Enlisting, paths: Paths, *, say: Say, missing: Missing) -> Settings:
    """Make this host a node of the token's cluster; returns when it is ready.

    Raises:
        CapabilityMissing: the kernel or a permission lacks something.
        AlreadyExists: this host is in a cluster.
        TokenRefused: expired, used by another node, or not for this.
        Refused: the node's name or address is taken in the cluster.
        Unreachable: no signer of the cluster, or not its etcd.
        MeshnetError: the agent ended while it started.
        Timeout: the agent did not become ready.
    """
    underlay = await _survey(wanted, paths)
    store = PkiStore(paths.pki)
    async with contextlib.AsyncExitStack() as undo:
        undo.callback(sweep.sweep_files, paths, keep_keys=True)
        say(f"asking cluster {wanted.token.cluster} for certificates")
        reply = await _enrol(wanted, underlay, store, plan=False)
        settings = _settings(wanted, underlay, reply, store)
        async with open_etcd(settings.etcd) as kv:
            await kv.revision()
        config.save(paths, settings)
        undo.push_async_callback(sweep.sweep_kernel, paths, Rtnl())
        agent = for_this_host(paths)
        undo.push_async_callback(agent.stop)
        say("starting the agent")
        await readiness.start(agent, missing)
        undo.pop_all()
    return settings


async def _survey(wanted: Enlisting, paths: Paths) -> Underlay:
    """What can be known on this host, before anybody is asked."""
    wanted.token.require(TokenKind.NODE)
    capability.require_all()
    require_no_cluster(paths)
    underlay = await Rtnl().find_underlay(wanted.underlay)
    await asyncio.to_thread(artifact.find)  # seconds, where nobody has compiled this version
    return underlay


async def _enrol(
    wanted: Enlisting, underlay: Underlay, store: PkiStore, *, plan: bool
) -> JoinNodeReply:
    """Ask a signer; what it answers is checked before any of it is kept."""
    return await enrol_node(
        wanted.token, store, node=wanted.node, addresses=underlay.addresses, plan=plan
    )


def _settings(
    wanted: Enlisting, underlay: Underlay, reply: JoinNodeReply, store: PkiStore
) -> Settings:
    return Settings(
        cluster=reply.cluster.name,
        cluster_id=reply.cluster.id,
        node=wanted.node,
        underlay=underlay.ifname,
        etcd=EtcdSettings(
            endpoints=reply.etcd_endpoints,
            ca=str(store.ca_path(Authority.NODE)),
            cert=str(store.certificate_path(Profile.NODE)),
            key=str(store.key_path(Profile.NODE)),
        ),
        signer=bool(reply.authority_keys),
    )
