"""`meshnet cluster leave`: nothing of this node is left in etcd or in the kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshnet import config
from meshnet.bootstrap import sweep
from meshnet.bootstrap.agent_process import for_this_host
from meshnet.bootstrap.init import LOOPBACK, Say, managed_etcd, open_etcd
from meshnet.config import Paths, Settings
from meshnet.errors import AgentUnreachable, Refused
from meshnet.host import capability
from meshnet.netlink.rtnl import Rtnl
from meshnet.registry import schema, trust_codec
from meshnet.registry.store import list_items


async def leave_cluster(
    paths: Paths,
    *,
    force: bool,
    say: Say,
    drain: Callable[[], None],
) -> None:
    """Drain this node, stop its agent (and its etcd), and remove its files.

    Args:
        force: go on without the agent, without etcd, and although others need this etcd.
        drain: asks the agent to take this node out of etcd and the kernel.

    Raises:
        CapabilityMissing: not root.
        ConfigError: this node is in no cluster.
        Refused: others need the etcd that this node runs, or its CA keys; or etcd does not
            answer.
        Unreachable: the etcd that this node runs does not answer.
        AgentUnreachable: the agent does not answer.
    """
    capability.require_root()
    settings = config.load(paths) if paths.config.exists() or not force else None
    if settings is not None:
        if (settings.etcd.managed or settings.signer) and not force:
            await _require_dispensable(settings)
        await _drain(settings, force=force, say=say, drain=drain)
    await for_this_host(paths).stop()
    # whatever the settings say, or said: a member that runs here is this node's
    await managed_etcd(paths, "", LOOPBACK).stop()
    await sweep.sweep_kernel(paths, Rtnl())
    sweep.sweep_files(paths)


async def _require_dispensable(settings: Settings) -> None:
    """Raises Refused when other nodes are alive which need the etcd that runs here, or the
    keys of the cluster's CAs, which no other live node has."""
    async with open_etcd(settings.etcd) as kv:
        prefix = schema.nodes(settings.cluster)
        names = [pair.key.removeprefix(prefix) for pair in (await kv.list(prefix)).pairs]
        reports = await list_items(kv, schema.TRUST_NODES, trust_codec.decode_trust_report)
    others = [name for name in names if name != settings.node]
    if not others:
        return
    lost = ", ".join(others)
    if settings.etcd.managed:
        raise Refused(
            f"node {settings.node} runs the etcd of cluster {settings.cluster}, which {lost} "
            "would lose: run `meshnet cluster leave` there first, or give --force here"
        )
    signers = {schema.last_of(each.key) for each in reports if each.item.signer}
    if not signers - {settings.node}:
        raise Refused(
            f"node {settings.node} is the last signer of cluster {settings.cluster}: without its "
            f"CA keys nobody joins and the certificates of {lost} run out: join one more host by "
            "`meshnet cluster token --signer` first, or give --force here"
        )


async def _drain(settings: Settings, *, force: bool, say: Say, drain: Callable[[], None]) -> None:
    say(f"draining node {settings.node}")
    try:
        await asyncio.to_thread(drain)
    except AgentUnreachable as error:
        if not force:
            raise
        say(f"going on without the agent: {error}")
