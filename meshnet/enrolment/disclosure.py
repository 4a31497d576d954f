"""What a cluster says of its trust to the clusters of its mesh; all of it is public.

A remote believes it since TLS proved, by the CA that it pinned at the join, that a signer
of this cluster says it: so an old mesh CA passes on what the new one is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from meshnet.enrolment.messages import AuthoritiesReply, AuthoritiesRequest
from meshnet.enrolment.nodes import Contacts, find_revocation
from meshnet.errors import PoisonedKey
from meshnet.kvstore.api import KV
from meshnet.model.authority import ToldRemote
from meshnet.pki.certificate import Authority
from meshnet.pki.store import PkiStore
from meshnet.registry import schema, trust_codec
from meshnet.registry.store import get_item, get_remote, list_items

MOST_REVOKED = 1000


class Disclosure:
    def __init__(
        self, kv: KV, cluster: str, pki: PkiStore, contacts: Callable[[], Contacts]
    ) -> None:
        self._kv = kv
        self.cluster = cluster
        self._pki = pki
        self._contacts = contacts

    async def authorities(self, request: AuthoritiesRequest) -> AuthoritiesReply:
        state = await get_item(self._kv, schema.TRUST, trust_codec.decode_trust)
        authorities = self._pki.authorities(Authority.MESH)
        reply = AuthoritiesReply(
            name=self.cluster,
            mesh_cas=tuple(ca.pem.decode() for ca in authorities),
            signers=self._contacts().signers,
            revoked=await revoked_serials(self._kv, Authority.MESH),
            expelled=await self._expelled(),
        )
        followed = state is not None and [ca.strip() for ca in state.item.mesh_cas] == [
            ca.strip() for ca in reply.mesh_cas
        ]
        if state is not None and followed and await get_remote(self._kv, request.cluster):
            told = trust_codec.encode_told(ToldRemote(epoch=state.item.epoch))
            await self._kv.put(schema.trust_told(request.cluster), told)
        return reply

    async def _expelled(self) -> tuple[str, ...]:
        found = await list_items(
            self._kv, schema.REVOKED, trust_codec.decode_revocation, _told_elsewhere
        )
        return tuple(schema.last_of(each.key) for each in found)[:MOST_REVOKED]

    async def banned(self, node: str, issued_at: datetime) -> bool:
        """Whether that node was thrown out after it was given something at that time."""
        revocation = await find_revocation(self._kv, node)
        return revocation is not None and issued_at <= revocation.at


async def revoked_serials(kv: KV, which: Authority) -> tuple[str, ...]:
    """Hex; what could not be used any more in any case is left out, the oldest first."""
    found = await list_items(kv, schema.REVOKED, trust_codec.decode_revocation, _told_elsewhere)
    recent = sorted((each.item for each in found), key=lambda each: each.at)
    serials = [serial for each in recent for serial in each.serials.get(which.value, ())]
    return tuple(dict.fromkeys(serials))[-MOST_REVOKED:]


def _told_elsewhere(_: PoisonedKey) -> None:
    """A revocation that cannot be read names no certificate."""
