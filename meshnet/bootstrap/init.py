"""`meshnet cluster init`: the first node of a new cluster.

All or nothing: each step says how to take it back, and a failure takes back every step
before it, the last one first. What was there before init is never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address
from pathlib import Path

import attrs

from meshnet import config
from meshnet.bootstrap import readiness, sweep
from meshnet.bootstrap.agent_process import for_this_host
from meshnet.bootstrap.readiness import Missing
from meshnet.config import EtcdSettings, Paths, Settings
from meshnet.dataplane import artifact
from meshnet.errors import AlreadyExists
from meshnet.host import capability
from meshnet.kvstore.api import KV, Created, Delete, Put
from meshnet.kvstore.channel import ClientTls
from meshnet.kvstore.etcd import EtcdKV
from meshnet.kvstore.server import EtcdServer
from meshnet.model.addressing import Address, host_port
from meshnet.model.cluster import ENROLMENT_PORT, ETCD_PORT, Cluster
from meshnet.model.kernel import Underlay
from meshnet.netlink.rtnl import Rtnl
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import OF_NODES, Authority, Profile, Subject
from meshnet.pki.store import PkiStore
from meshnet.registry import codec, schema

Say = Callable[[str], None]
"""Takes one line of progress."""

LOOPBACK = IPv4Address("127.0.0.1")


@attrs.frozen(kw_only=True)
class Founding:
    """What the operator asked for."""

    cluster: Cluster
    node: str
    underlay: str | None
    """Interface or CIDR; None: the one with the default route."""
    etcd: EtcdSettings | None
    """An etcd that is there already; None: this node runs one."""


def require_no_cluster(paths: Paths) -> None:
    """Raises AlreadyExists when this host is a node of a cluster, or keeps state of one."""
    if paths.config.exists():
        settings = config.load(paths)
        raise AlreadyExists(
            f"this host is node {settings.node} of cluster {settings.cluster} already: `meshnet "
            "status` shows it; to start anew run `meshnet cluster leave` first"
        )
    for left in (PkiStore(paths.pki).certificate_path(Profile.NODE), paths.state / "etcd"):
        if left.exists():
            raise AlreadyExists(
                f"{left} is left from a cluster that this host was in: `meshnet cluster leave "
                "--force` removes it"
            )


async def found_cluster(wanted: Founding, paths: Paths, *, say: Say, missing: Missing) -> Settings:
    """Make this host the first node of the new cluster; returns when it is ready.

    Raises:
        CapabilityMissing: the kernel or a permission lacks something.
        AlreadyExists: this host is in a cluster, or the etcd holds one.
        ConfigError: no interface, or several, could be the underlay.
        Unreachable: the external etcd does not answer, or not to these certificates.
        MeshnetError: the agent ended while it started.
        Timeout: etcd or the agent did not become ready.
    """
    capability.require_all()
    require_no_cluster(paths)
    netlink = Rtnl()
    underlay = await netlink.find_underlay(wanted.underlay)
    say(f"underlay is {underlay.ifname} ({', '.join(map(str, underlay.addresses))})")
    await asyncio.to_thread(artifact.find)  # seconds, where nobody has compiled this version
    async with contextlib.AsyncExitStack() as undo:
        undo.callback(sweep.sweep_files, paths)
        etcd = await _etcd(wanted, paths, underlay, undo, say)
        settings = Settings(
            cluster=wanted.cluster.name,
            cluster_id=wanted.cluster.id,
            node=wanted.node,
            underlay=underlay.ifname,
            etcd=etcd,
            signer=True,
        )
        await _register(wanted.cluster, etcd, undo)
        config.save(paths, settings)
        undo.push_async_callback(sweep.sweep_kernel, paths, netlink)
        agent = for_this_host(paths)
        undo.push_async_callback(agent.stop)
        say("starting the agent")
        await readiness.start(agent, missing)
        undo.pop_all()
    return settings


async def _etcd(
    wanted: Founding,
    paths: Paths,
    underlay: Underlay,
    undo: contextlib.AsyncExitStack,
    say: Say,
) -> EtcdSettings:
    """The CAs and this node's certificates, and an etcd that answers."""
    store = PkiStore(paths.pki)
    signer = Signer.create(wanted.cluster.name)
    signer.save(store)
    for profile in OF_NODES:
        names = Subject.of(profile, wanted.cluster.name, wanted.node, underlay.addresses)
        signer.enrol(store, names)
    store.save_signers((host_port(underlay.addresses[0], ENROLMENT_PORT),))
    if wanted.etcd is not None:
        return wanted.etcd
    say(f"starting etcd on {underlay.addresses[0]}: one member, so this node is where it is lost")
    server = managed_etcd(paths, wanted.node, underlay.addresses[0])
    undo.push_async_callback(server.stop)
    await server.start()
    return EtcdSettings(
        endpoints=(host_port(LOOPBACK, ETCD_PORT),),
        ca=str(store.ca_path(Authority.NODE)),
        cert=str(store.certificate_path(Profile.NODE)),
        key=str(store.key_path(Profile.NODE)),
        managed=True,
    )


def managed_etcd(paths: Paths, node: str, address: Address) -> EtcdServer:
    """The member that this node runs, as the agent knows it too."""
    store = PkiStore(paths.pki)
    return EtcdServer(
        name=node,
        address=address,
        directory=paths.state / "etcd",
        ca=store.ca_path(Authority.NODE),
        cert=store.certificate_path(Profile.ETCD),
        key=store.key_path(Profile.ETCD),
        crl=store.crl_path,
        port=ETCD_PORT,
    )


async def _register(cluster: Cluster, etcd: EtcdSettings, undo: contextlib.AsyncExitStack) -> None:
    """Write the cluster into its etcd, unless a cluster is in there."""
    async with open_etcd(etcd) as kv:
        result = await kv.txn(
            [Created(schema.CONFIG)], [Put(schema.CONFIG, codec.encode_cluster(cluster))]
        )
        if not result.succeeded:
            found = await kv.get(schema.CONFIG)
            name = codec.decode_cluster(found.key, found.value).name if found else "another"
            raise AlreadyExists(
                f"etcd at {', '.join(etcd.endpoints)} holds cluster {name} already: join it with "
                "`meshnet cluster join TOKEN`, or name another etcd"
            )
    if not etcd.managed:
        undo.push_async_callback(_unregister, etcd)


async def _unregister(etcd: EtcdSettings) -> None:
    """The cluster was ours alone from its first key on; what has a lease goes by itself."""
    async with open_etcd(etcd) as kv:
        await kv.txn([], [Delete(schema.OURS, prefix=True)])


@contextlib.asynccontextmanager
async def open_etcd(etcd: EtcdSettings) -> AsyncIterator[KV]:
    tls = ClientTls(ca=Path(etcd.ca), cert=Path(etcd.cert), key=Path(etcd.key))
    kv = EtcdKV(etcd.endpoints, tls)
    try:
        yield kv
    finally:
        await kv.close()
