"""Can that cluster be read? Through each of its gateways, as our mirror will read it."""

from __future__ import annotations

import asyncio

from meshnet.enrolment.messages import MeshMember
from meshnet.errors import MeshnetError
from meshnet.kvstore.channel import ClientTls
from meshnet.kvstore.etcd import EtcdKV
from meshnet.model.check import Check
from meshnet.pki.certificate import Profile
from meshnet.pki.store import PkiStore
from meshnet.registry import codec, schema

PATIENCE_S = 10.0
"""The gateways hear of us through their own etcd, some moments after the signer."""
GAP_S = 0.2


class GatewayProbe:
    """`pki`: our own, for the mirror certificate."""

    def __init__(self, pki: PkiStore, *, patience_s: float = PATIENCE_S) -> None:
        self._pki = pki
        self._patience_s = patience_s

    async def __call__(self, member: MeshMember) -> tuple[Check, ...]:
        """One check a gateway, all at once, within the patience."""
        probes = (self._probe(member, gateway) for gateway in member.gateways)
        return tuple(await asyncio.gather(*probes))

    async def _probe(self, member: MeshMember, gateway: str) -> Check:
        tls = ClientTls(
            ca=member.mesh_ca.encode(),
            cert=self._pki.certificate_path(Profile.MIRROR),
            key=self._pki.key_path(Profile.MIRROR),
        )
        kv = EtcdKV([gateway], tls, server=f"gateway of {member.name}", timeout_s=2.0)
        detail = f"{gateway} was not tried"
        try:
            async with asyncio.timeout(self._patience_s):
                while True:
                    try:
                        detail = await self._read(kv, member)
                        return Check(check=f"gateway {gateway}", ok=True, evidence=detail)
                    except MeshnetError as error:
                        detail = str(error)
                    await asyncio.sleep(GAP_S)
        except TimeoutError:
            return Check(check=f"gateway {gateway}", ok=False, evidence=detail)
        finally:
            await kv.close()

    async def _read(self, kv: EtcdKV, member: MeshMember) -> str:
        key = schema.cluster_config(member.name)
        pair = await kv.get(key)
        if pair is None:
            raise MeshnetError(f"{key} does not exist yet: its cluster has no leader")
        config = codec.decode_cluster_config(key, pair.value)
        if config.id != member.id:
            raise MeshnetError(f"{key} has id {config.id}, but the cluster said {member.id}")
        return f"reads {key}"
