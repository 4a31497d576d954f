"""An agent's first steps: what is this node, and is its dataplane in place.

With a snapshot on disk none of it waits for etcd, so that a restart or a reboot during an
outage of etcd takes over the endpoints at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import attrs
import structlog

from meshnet.agent import snapshot
from meshnet.agent.local import GATEWAY_MAC, LocalNode
from meshnet.agent.snapshot import NodeSnapshot
from meshnet.bootstrap import port_pool
from meshnet.config import Paths, Settings
from meshnet.dataplane import artifact
from meshnet.dataplane.api import Dataplane
from meshnet.dataplane.kernel import KernelDataplane
from meshnet.dataplane.schema import Sizes
from meshnet.errors import ConfigError, MeshnetError, RegistryError
from meshnet.host import cgroup
from meshnet.kvstore.api import KV
from meshnet.kvstore.channel import ClientTls
from meshnet.kvstore.etcd import EtcdKV
from meshnet.kvstore.server import EtcdServer
from meshnet.model.cluster import GENEVE_PORT, VXLAN_PORT, Routing
from meshnet.model.dataplane import NodeConfig
from meshnet.model.kernel import GENEVE_IFNAME, VXLAN_IFNAME, Underlay
from meshnet.model.ports import parse_pool
from meshnet.model.remote import Remote
from meshnet.netlink.api import Netlink
from meshnet.netlink.rtnl import Rtnl
from meshnet.pki.certificate import Authority, Profile
from meshnet.pki.store import PkiStore
from meshnet.registry.allocator import allocate_pod_cidrs
from meshnet.registry.store import get_cluster

RETRY_S = 0.5


@attrs.frozen(kw_only=True)
class Foundation:
    """What the rest of the agent stands on."""

    netlink: Netlink
    kv: KV
    local: LocalNode
    dataplane: Dataplane
    vxlan_ifindex: int
    etcd: EtcdServer | None
    """The member that this node runs, if it runs one."""


async def lay_foundation(paths: Paths, settings: Settings) -> Foundation:
    """Answers when this node forwards what it forwarded before."""
    netlink = Rtnl()
    underlay = await netlink.underlay_by_name(settings.underlay)
    etcd = managed_etcd(paths, settings, underlay) if settings.etcd.managed else None
    if etcd is not None:
        await etcd.start()
    kv = EtcdKV(settings.etcd.endpoints, etcd_tls(settings))
    try:
        local = await settle(kv, paths, settings, underlay)
        dataplane, vxlan_ifindex = await _set_up_dataplane(paths, settings, local, netlink)
    except BaseException:
        await kv.close()
        raise
    return Foundation(
        netlink=netlink,
        kv=kv,
        local=local,
        dataplane=dataplane,
        vxlan_ifindex=vxlan_ifindex,
        etcd=etcd,
    )


async def lay_again(paths: Paths, settings: Settings, end: asyncio.Event) -> Foundation | None:
    """As `lay_foundation`, until it succeeds: an agent that gave up here would not see the
    underlay come back. None: `end` was set before."""
    while not end.is_set():
        try:
            return await lay_foundation(paths, settings)
        except MeshnetError as error:
            structlog.get_logger().error("cannot begin anew yet", error=str(error))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(end.wait(), RETRY_S)
    return None


def etcd_tls(settings: Settings) -> ClientTls:
    etcd = settings.etcd
    return ClientTls(ca=Path(etcd.ca), cert=Path(etcd.cert), key=Path(etcd.key))


def mirror_tls(pki: PkiStore, remote: Remote) -> ClientTls:
    """For a remote's gateways: our mirror certificate, trust in the remote's CAs alone."""
    return ClientTls(
        ca="".join(remote.trusted).encode(),
        cert=pki.certificate_path(Profile.MIRROR),
        key=pki.key_path(Profile.MIRROR),
    )


def managed_etcd(paths: Paths, settings: Settings, underlay: Underlay) -> EtcdServer:
    """The etcd member that this node runs, as `cluster init` set it up."""
    pki = PkiStore(paths.pki)
    return EtcdServer(
        name=settings.node,
        address=underlay.addresses[0],
        directory=paths.state / "etcd",
        ca=pki.ca_path(Authority.NODE),
        cert=pki.certificate_path(Profile.ETCD),
        key=pki.key_path(Profile.ETCD),
        crl=pki.crl_path,
    )


async def settle(kv: KV, paths: Paths, settings: Settings, underlay: Underlay) -> LocalNode:
    """What this node is: from the snapshot, else from etcd, for which it waits."""
    directory = paths.state / "snapshot"
    known = snapshot.load(directory)
    if known is None or known.cluster.name != settings.cluster:
        known = await _ask(kv, settings)
        snapshot.save(directory, known)
    if known.cluster.id != settings.cluster_id:
        raise ConfigError(
            f"{paths.config} says cluster id {settings.cluster_id}, etcd says {known.cluster.id}: "
            "is it the etcd of another cluster?"
        )
    return LocalNode(
        name=settings.node,
        cluster=known.cluster,
        underlay=underlay,
        pod_cidrs=known.pod_cidrs,
        boot_id=_boot_id(),
    )


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def _ask(kv: KV, settings: Settings) -> NodeSnapshot:
    log = structlog.get_logger()
    while True:
        try:
            cluster = (await get_cluster(kv)).item
            pod_cidrs = await allocate_pod_cidrs(kv, cluster, settings.node)
            return NodeSnapshot(cluster=cluster, pod_cidrs=pod_cidrs)
        except RegistryError as error:
            if not error.transient:
                raise
            log.warning("waiting for etcd", error=str(error))
            await asyncio.sleep(RETRY_S)


async def _set_up_dataplane(
    paths: Paths, settings: Settings, local: LocalNode, netlink: Netlink
) -> tuple[Dataplane, int]:
    """Programs loaded and attached, the tunnel device up. Answers its ifindex too."""
    bytecode = await asyncio.to_thread(artifact.find)  # it may have to compile
    await netlink.enable_forwarding()
    mtu = local.device_mtu(local.endpoint_mtu)
    vxlan_ifindex, _mac = await netlink.ensure_vxlan(
        VXLAN_IFNAME, port=VXLAN_PORT, mtu=mtu, addresses=local.gateways
    )
    geneve_ifindex, _ = await netlink.ensure_vxlan(
        GENEVE_IFNAME, port=GENEVE_PORT, mtu=mtu, addresses=()
    )
    pool = parse_pool(settings.masquerade_ports) if local.cluster.masquerade else None
    if pool is not None:
        await port_pool.reserve(paths, netlink, pool)
    config = NodeConfig(
        cluster_id=local.cluster.id,
        underlay_ifindex=local.underlay.ifindex,
        vxlan_ifindex=vxlan_ifindex,
        underlay_ipv4=local.underlay_address(4),
        underlay_ipv6=local.underlay_address(6),
        pod_cidrs=tuple(cidr.network for cidr in local.pod_cidrs),
        gateway_ipv4=local.gateway(4),
        gateway_ipv6=local.gateway(6),
        gateway_mac=GATEWAY_MAC,
        vxlan_port=VXLAN_PORT,
        geneve_port=GENEVE_PORT,
        geneve_ifindex=geneve_ifindex,
        accept_native=local.cluster.routing is not Routing.TUNNEL,
        masquerade_ports=pool,
        unmasqueraded=local.cluster.non_masquerade_cidrs,
    )
    sizes = Sizes(conntrack=settings.conntrack_entries)
    dataplane = KernelDataplane(paths.bpf, bytecode, sizes=sizes)
    try:
        dataplane.configure(config)
        dataplane.attach_sockets(cgroup.hierarchy())
        for ifindex in (vxlan_ifindex, geneve_ifindex):
            await netlink.set_up(ifindex)  # only now: its ingress must be guarded first
    except BaseException:
        dataplane.close()
        raise
    return dataplane, vxlan_ifindex
