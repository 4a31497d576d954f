"""Clusters as far as trust goes: their CAs, their certificates on disk, a gateway's client."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import grpc
from etcd3 import etcdrpc

from meshnet.kvstore.channel import ClientTls
from meshnet.model.addressing import parse_address, parse_prefix
from meshnet.model.cluster import Cluster
from meshnet.model.remote import Remote, RemoteState
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import LIFETIME, OF_NODES, Authority, Profile, Subject, enrolment_name
from meshnet.pki.store import PkiStore

LOOPBACK = parse_address("127.0.0.1")


@attrs.frozen
class TrustedCluster:
    """One cluster with one node `<cluster>-1` on 127.0.0.1 that holds every certificate."""

    cluster: Cluster
    signer: Signer
    pki: PkiStore

    @classmethod
    def create(cls, directory: Path, name: str, number: int) -> TrustedCluster:
        pod_cidrs = (parse_prefix(f"10.{number}.0.0/16"),)
        made = cls(
            Cluster(name=name, id=number, pod_cidrs=pod_cidrs),
            Signer.create(name),
            PkiStore(directory / name / "pki"),
        )
        made.signer.save(made.pki)
        for profile in OF_NODES:
            made.enrol(profile)
        return made

    @property
    def name(self) -> str:
        return self.cluster.name

    def enrol(
        self,
        profile: Profile,
        *,
        claim: str | None = None,
        node: str | None = None,
        lifetime: timedelta = LIFETIME,
    ) -> None:
        """(Re)issue one certificate; `claim` puts another cluster's name into it, `node`
        another common name."""
        subject = Subject(
            profile=profile,
            cluster=claim or self.name,
            node=node or f"{self.name}-1",
            addresses=(LOOPBACK,),
            dns_names=(enrolment_name(self.name),) if profile is Profile.ENROLMENT else (),
        )
        self.signer.enrol(self.pki, subject, lifetime=lifetime)

    def remote(self, *, state: RemoteState = RemoteState.COMMITTED) -> Remote:
        """How another cluster stores this one."""
        return Remote(
            name=self.name,
            id=self.cluster.id,
            mesh_ca=self.pki.ca(Authority.MESH).decode(),
            pod_cidrs=self.cluster.pod_cidrs,
            gateways=(),
            state=state,
        )

    def etcd_tls(self) -> ClientTls:
        """Of the managed etcd, and good for its clients too."""
        return self._tls(Profile.ETCD, self.pki.ca_path(Authority.NODE))

    def mirror_tls(self, other: TrustedCluster) -> ClientTls:
        """With which our mirror calls another cluster's gateway."""
        return self._tls(Profile.MIRROR, other.pki.ca_path(Authority.MESH))

    def _tls(self, profile: Profile, ca: Path) -> ClientTls:
        return ClientTls(
            ca=ca, cert=self.pki.certificate_path(profile), key=self.pki.key_path(profile)
        )


class RawClient:
    """etcd's stubs without any courtesy: says whatever a hostile remote could say."""

    def __init__(self, endpoint: str, tls: ClientTls) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
        self.channel = grpc.aio.secure_channel(endpoint, tls.credentials(), options)
        self.kv = etcdrpc.KVStub(self.channel)
        self.lease = etcdrpc.LeaseStub(self.channel)
        self.maintenance = etcdrpc.MaintenanceStub(self.channel)
        self.cluster = etcdrpc.ClusterStub(self.channel)
        self.auth = etcdrpc.AuthStub(self.channel)

    async def range(self, key: bytes, range_end: bytes = b"") -> Any:
        return await self.kv.Range(etcdrpc.RangeRequest(key=key, range_end=range_end), timeout=5)

    def watch(self) -> WatchCall:
        return WatchCall(etcdrpc.WatchStub(self.channel).Watch())


class WatchCall:
    """One Watch stream, request by request."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def create(self, key: bytes, range_end: bytes = b"", start_revision: int = 0) -> None:
        create = etcdrpc.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=start_revision
        )
        await self.call.write(etcdrpc.WatchRequest(create_request=create))

    async def cancel(self, watch_id: int) -> None:
        cancel = etcdrpc.WatchCancelRequest(watch_id=watch_id)
        await self.call.write(etcdrpc.WatchRequest(cancel_request=cancel))

    async def progress(self) -> None:
        progress = etcdrpc.WatchProgressRequest()
        await self.call.write(etcdrpc.WatchRequest(progress_request=progress))

    async def answer(self) -> Any:
        return await self.call.read()
