"""A cluster that can be joined: etcd, gateway and enrolment port on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import attrs

from meshnet.enrolment.nodes import Contacts
from meshnet.enrolment.server import EnrolmentServer
from meshnet.enrolment.tokens import Tokens
from meshnet.enrolment.tunnel import TunnelSide
from meshnet.errors import PoisonedKey
from meshnet.gateway.server import Gateway
from meshnet.kvstore.api import Delete
from meshnet.kvstore.channel import ClientTls, Connections
from meshnet.kvstore.etcd import EtcdKV
from meshnet.mesh import join as mesh_join
from meshnet.mesh.join import JoinReport
from meshnet.model.cluster import ClusterConfig
from meshnet.model.node import Node
from meshnet.model.remote import Remote
from meshnet.model.token import TokenKind
from meshnet.pki.certificate import Authority, Profile
from meshnet.pki.store import PkiStore
from meshnet.pki.token import JoinToken
from meshnet.registry import codec, schema
from meshnet.registry.follow import Snapshot, follow
from tests.support.etcd import EtcdProcess, etcd, free_port
from tests.support.trust import LOOPBACK, TrustedCluster

PATIENCE_S = 1.0


@attrs.frozen
class ClusterWithEtcd:
    trusted: TrustedCluster
    etcd: EtcdProcess


@attrs.frozen
class RunningCluster:
    trusted: TrustedCluster
    etcd: EtcdProcess
    kv: EtcdKV
    gateway: str
    """`host:port`, as is `signer`."""
    signer: str
    tunnel: TunnelSide

    @property
    def name(self) -> str:
        return self.trusted.name

    async def token(
        self, kind: TokenKind, *, signer: bool = False, for_cluster: str | None = None
    ) -> JoinToken:
        token, _ = await Tokens(self.kv, self.trusted.cluster).create(
            kind,
            ttl_s=3600,
            mesh_ca=self.trusted.signer.mesh.certificate,
            signers=(self.signer,),
            signer=signer,
            for_cluster=for_cluster,
        )
        return token

    async def join(
        self, token: JoinToken, *, plan: bool = False, gateways: Iterable[str] | None = None
    ) -> JoinReport:
        """`mesh join` here; `gateways` lies about our own."""
        ours = tuple(gateways) if gateways is not None else (self.gateway,)
        return await mesh_join.join(
            token.encode(),
            kv=self.kv,
            cluster=self.trusted.cluster,
            pki=self.trusted.pki,
            tunnel=self.tunnel,
            plan=plan,
            gateways=lambda _: ours,
            patience_s=PATIENCE_S,
        )

    async def remotes(self) -> dict[str, str]:
        """Name -> state."""
        pairs = (await self.kv.list(schema.REMOTES)).pairs
        found = (codec.decode_remote(pair.key, pair.value) for pair in pairs)
        return {remote.name: remote.state.value for remote in found}


def loopback_tunnel(**changes: object) -> TunnelSide:
    """Two of them are told apart by their ports."""
    ports = {"vxlan": free_port(), "geneve": free_port()}
    side = TunnelSide(ifname="lo", addresses=(LOOPBACK,), mtu=1500, sends="vxlan", ports=ports)
    return attrs.evolve(side, **changes)


def client_of(pki: PkiStore, profile: Profile, endpoint: str) -> EtcdKV:
    tls = ClientTls(
        ca=pki.ca_path(Authority.NODE),
        cert=pki.certificate_path(profile),
        key=pki.key_path(profile),
    )
    return EtcdKV([endpoint], tls)


@contextlib.contextmanager
def cluster_with_etcd(directory: Path, name: str, number: int) -> Iterator[ClusterWithEtcd]:
    trusted = TrustedCluster.create(directory, name, number)
    with etcd(directory / name / "etcd", trusted.etcd_tls()) as process:
        yield ClusterWithEtcd(trusted, process)


@contextlib.asynccontextmanager
async def running(base: ClusterWithEtcd) -> AsyncIterator[RunningCluster]:
    """With an empty etcd but for what a leader and a node would have written."""
    trusted, kv = base.trusted, base.etcd.kv()
    await kv.txn((), (Delete("", prefix=True),))
    await _write_state(kv, trusted)
    connections = Connections([base.etcd.endpoint], trusted.etcd_tls(), server="etcd")
    gateway = Gateway(trusted.name, trusted.pki, connections)
    (gateway_port,) = await gateway.start(["127.0.0.1:0"])
    gateways = (f"127.0.0.1:{gateway_port}",)
    contacts = Contacts(etcd_endpoints=(base.etcd.endpoint,), signers=("127.0.0.1:4244",))
    tunnel = loopback_tunnel()
    enrolment = EnrolmentServer.of(
        kv,
        trusted.cluster,
        trusted.pki,
        lambda: contacts,
        tunnel,
        gateways=lambda _: gateways,
        patience_s=PATIENCE_S,
    )
    (signer_port,) = await enrolment.start(["127.0.0.1:0"])
    following = asyncio.ensure_future(_feed(kv, gateway))
    try:
        signer = f"127.0.0.1:{signer_port}"
        yield RunningCluster(trusted, base.etcd, kv, gateways[0], signer, tunnel)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await enrolment.stop()
        await gateway.stop()
        await connections.close()
        await kv.close()


async def _write_state(kv: EtcdKV, trusted: TrustedCluster) -> None:
    cluster = trusted.cluster
    node = Node(
        name=f"{cluster.name}-1",
        cluster=cluster.name,
        cluster_id=cluster.id,
        addresses=(LOOPBACK,),
    )
    await kv.put(schema.node(cluster.name, node.name), codec.encode_node(node))
    config = codec.encode_cluster_config(ClusterConfig(id=cluster.id))
    await kv.put(schema.cluster_config(cluster.name), config)


async def _feed(kv: EtcdKV, gateway: Gateway) -> None:
    """What the agent does: the gateway learns of remotes from etcd."""
    remotes: dict[str, Remote] = {}

    def poisoned(error: PoisonedKey) -> None:
        raise AssertionError(error)

    async for update in follow(kv, schema.REMOTES, codec.decode_remote, poisoned):
        if isinstance(update, Snapshot):
            remotes = dict(update.items)
        else:
            for key, remote in update.items.items():
                remotes.pop(key, None)
                if remote is not None:
                    remotes[key] = remote
        gateway.set_remotes(remotes.values())
