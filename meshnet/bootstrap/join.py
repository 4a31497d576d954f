"""`meshnet cluster join`: one more node of a cluster that gave us a token.

All or nothing on this host. The token stays good for this node until it expires: its key is
on disk before the token is used, so a second try is the same claimant.
"""

from __future__ import annotations

import contextlib

from meshnet import config
from meshnet.bootstrap import readiness, sweep
from meshnet.bootstrap.agent_process import for_this_host
from meshnet.bootstrap.init import Say, open_etcd
from meshnet.bootstrap.plan import Enlisting, Plan, ask, make_plan
from meshnet.bootstrap.readiness import Missing
from meshnet.config import EtcdSettings, Paths, Settings
from meshnet.enrolment.client import EnrolmentClient
from meshnet.enrolment.messages import JoinNodeReply
from meshnet.model.check import demand
from meshnet.model.cluster import Cluster
from meshnet.model.kernel import Underlay
from meshnet.netlink.rtnl import Rtnl
from meshnet.pki.certificate import Authority, Certificate, Profile
from meshnet.pki.store import PkiStore
from meshnet.registry.store import get_cluster


async def plan_join(wanted: Enlisting, paths: Paths, *, say: Say) -> Plan:
    """Look at everything that a join needs, and change nothing."""
    return await make_plan(wanted, paths, Rtnl(), say=say, strict=False)


async def join_cluster(
    wanted: Enlisting, paths: Paths, *, say: Say, missing: Missing
) -> tuple[Cluster, bool]:
    """Make this host a node of the token's cluster; returns when it is ready.

    Answers the cluster, and False when this host was that node already.

    Raises:
        CapabilityMissing: the kernel or a permission lacks something.
        AlreadyExists: this host is in another cluster, or under another name in this one.
        TokenRefused: expired, used by another node, or not for this.
        Refused: a check of the plan failed.
        Unreachable: no signer of the cluster, or not its etcd.
        MeshnetError: the agent ended while it started.
        Timeout: the agent did not become ready.
    """
    known = await joined_before(wanted, paths)
    if known is not None:
        return known, False
    netlink = Rtnl()
    plan = await make_plan(wanted, paths, netlink, say=say, strict=True)
    demand(plan.checks)
    assert plan.meeting is not None, "a clean plan has met its signer"
    store = PkiStore(paths.pki)
    async with contextlib.AsyncExitStack() as undo:
        undo.callback(sweep.sweep_files, paths, keep_keys=True)
        say(f"asking cluster {wanted.token.cluster} for certificates")
        signer = EnrolmentClient.of(wanted.token)
        reply = await ask(wanted, plan.meeting, store, signer, plan=False)
        settings = _settings(wanted, plan.meeting.underlay, reply, store)
        async with open_etcd(settings.etcd) as kv:
            await kv.revision()
        config.save(paths, settings)
        undo.push_async_callback(sweep.sweep_kernel, paths, netlink)
        agent = for_this_host(paths)
        undo.push_async_callback(agent.stop)
        say("starting the agent")
        await readiness.start(agent, missing)
        undo.pop_all()
    return reply.cluster, True


async def joined_before(wanted: Enlisting, paths: Paths) -> Cluster | None:
    """The cluster, when this host is that node of it already: nothing is left to do."""
    if not paths.config.exists():
        return None
    settings = config.load(paths)
    if (settings.cluster, settings.node) != (wanted.token.cluster, wanted.node):
        return None
    if Certificate.parse(PkiStore(paths.pki).ca(Authority.MESH)).pem != wanted.token.ca.pem:
        return None  # another cluster of that name: refused as any other
    async with open_etcd(settings.etcd) as kv:
        return (await get_cluster(kv)).item


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
