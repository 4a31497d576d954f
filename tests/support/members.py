"""A cluster's nodes as far as trust goes, over a real etcd that its first node runs.

east-1: etcd (mutual TLS, as the agent starts it), signer, enrolment port
east-2: another node that joined by a token
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import attrs

from meshnet.agent.authorities import Authorities, Surroundings
from meshnet.agent.certificates import CertificateKeeper
from meshnet.agent.etcd_health import supervise
from meshnet.agent.local import LocalNode
from meshnet.enrolment.joining import enrol_node
from meshnet.enrolment.nodes import Contacts
from meshnet.enrolment.server import EnrolmentServer
from meshnet.enrolment.tokens import Tokens
from meshnet.errors import MeshnetError
from meshnet.kvstore.channel import ClientTls
from meshnet.kvstore.etcd import EtcdKV
from meshnet.kvstore.server import EtcdServer
from meshnet.model.addressing import parse_address, parse_prefix
from meshnet.model.cluster import Cluster
from meshnet.model.kernel import Underlay
from meshnet.model.node import Node
from meshnet.model.token import TokenKind
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import LIFETIME, Authority, Profile, Subject
from meshnet.pki.store import PkiStore
from meshnet.registry import codec, schema
from meshnet.registry.session import Session
from tests.support.enrolment import loopback_tunnel
from tests.support.etcd import free_port

LOOPBACK = parse_address("127.0.0.1")


@attrs.define
class Settings:
    """What the cluster has set; tests change it under the members' feet."""

    lifetime: timedelta = LIFETIME


@attrs.define
class Member:
    """One node: what its agent runs of trust."""

    name: str
    pki: PkiStore
    kv: EtcdKV
    session: Session
    authorities: Authorities
    keeper: CertificateKeeper
    tasks: list[asyncio.Task[None]] = attrs.field(factory=list)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.kv.close()


@attrs.define
class Members:
    """The cluster `east`."""

    directory: Path
    cluster: Cluster
    settings: Settings
    etcd: EtcdServer
    founder: PkiStore
    signers: dict[str, str] = attrs.field(factory=dict)
    """Node -> its enrolment port."""
    nodes: dict[str, Member] = attrs.field(factory=dict)
    servers: list[EnrolmentServer] = attrs.field(factory=list)
    remotes: frozenset[str] = frozenset()

    def tls(self, pki: PkiStore) -> ClientTls:
        return ClientTls(
            ca=pki.ca_path(Authority.NODE),
            cert=pki.certificate_path(Profile.NODE),
            key=pki.key_path(Profile.NODE),
        )

    def client(self, pki: PkiStore) -> EtcdKV:
        return EtcdKV([self.etcd.endpoint], self.tls(pki))

    async def add(self, name: str, pki: PkiStore, *, signer: bool = False) -> Member:
        """Start what an agent runs of trust; its node key is there when this returns."""
        kv = self.client(pki)
        if signer:
            await self.serve_enrolment(name, kv, pki)
        session = Session(kv)
        local = LocalNode(
            name=name,
            cluster=self.cluster,
            underlay=Underlay(ifname="lo", ifindex=1, mac="", mtu=1500, addresses=(LOOPBACK,)),
            pod_cidrs=(),
            boot_id="",
        )
        keeper = CertificateKeeper(pki, self.cluster.name, lambda: self.settings.lifetime)
        authorities = Authorities(
            local,
            kv,
            session,
            pki,
            self.etcd if pki is self.founder else None,
            Surroundings(live=lambda: frozenset(self.nodes), remotes=lambda: self.remotes),
            signer=self.signers.get(name),
            lifetime=lambda: self.settings.lifetime,
            renew=keeper.wake,
        )
        member = Member(name, pki, kv, session, authorities, keeper)
        node = Node(name=name, cluster="east", cluster_id=1, addresses=(LOOPBACK,))
        session.want(schema.node("east", name), codec.encode_node(node))
        work = [session.run(), authorities.run(), keeper.run()]
        if pki is self.founder:
            work.append(supervise(self.etcd))
        member.tasks = [asyncio.ensure_future(each) for each in work]
        self.nodes[name] = member
        return member

    async def join(self, name: str, *, signer: bool = False) -> Member:
        """By a real token, over the real enrolment port."""
        pki = PkiStore(self.directory / name / "pki")
        token, _ = await Tokens(self.nodes["east-1"].kv, self.cluster).create(
            TokenKind.NODE,
            ttl_s=600,
            mesh_ca=self.founder.founding(Authority.MESH),
            signers=tuple(self.signers.values()),
            signer=signer,
        )
        # every member of this cluster lives on one address: the one that joins says another
        addresses = (parse_address(f"127.0.0.{len(self.nodes) + 1}"),)
        await enrol_node(token, pki, node=name, addresses=addresses)
        return await self.add(name, pki, signer=signer)

    async def serve_enrolment(self, name: str, kv: EtcdKV, pki: PkiStore, *, port: int = 0) -> None:
        server = EnrolmentServer.of(
            kv,
            self.cluster,
            pki,
            self._contacts,
            loopback_tunnel(),
            lifetime=lambda: self.settings.lifetime,
        )
        (port,) = await server.start([f"127.0.0.1:{port}"])
        self.servers.append(server)
        self.signers[name] = f"127.0.0.1:{port}"
        pki.save_signers(tuple(self.signers.values()))

    def _contacts(self) -> Contacts:
        return Contacts(etcd_endpoints=(self.etcd.endpoint,), signers=tuple(self.signers.values()))

    async def stop(self) -> None:
        for member in self.nodes.values():
            await member.stop()
        for server in self.servers:
            await server.stop()
        await self.etcd.stop()


@contextlib.asynccontextmanager
async def members(directory: Path, *, lifetime: timedelta = LIFETIME) -> AsyncIterator[Members]:
    """The cluster with its first node."""
    cluster = Cluster(name="east", id=1, pod_cidrs=(parse_prefix("10.1.0.0/16"),))
    pki = PkiStore(directory / "east-1" / "pki")
    signer = Signer.create("east")
    signer.save(pki)
    for profile in (*Profile,):
        if profile is not Profile.PEER:
            signer.enrol(pki, Subject.of(profile, "east", "east-1", (LOOPBACK,)), lifetime=lifetime)
    etcd = EtcdServer(
        name="east-1",
        address=LOOPBACK,
        directory=directory / "etcd",
        ca=pki.ca_path(Authority.NODE),
        cert=pki.certificate_path(Profile.ETCD),
        key=pki.key_path(Profile.ETCD),
        crl=pki.crl_path,
        port=free_port(),
        peer_port=free_port(),
        health_port=free_port(),
    )
    made = Members(directory, cluster, Settings(lifetime), etcd, pki)
    await etcd.start()
    try:
        await made.add("east-1", pki, signer=True)
        yield made
    finally:
        await made.stop()


async def eventually(condition: object, *, within_s: float = 40.0, what: str = "") -> None:
    """Ask (a plain or an async function) until it is true. An etcd that is away for a moment
    is no answer."""
    async with asyncio.timeout(within_s):
        while True:
            with contextlib.suppress(MeshnetError):
                answer = condition()  # type: ignore[operator]
                if await answer if asyncio.iscoroutine(answer) else answer:
                    return
            await asyncio.sleep(0.1)
