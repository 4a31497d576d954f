"""Tokens and joins, as the local API asks for them."""

from __future__ import annotations

from typing import Any

import attrs

from meshnet.agent.local import LocalNode
from meshnet.agent.trust import Trust, tunnel_side
from meshnet.enrolment.tokens import Tokens
from meshnet.errors import Refused, UsageError
from meshnet.kvstore.api import KV
from meshnet.mesh import join as mesh_join
from meshnet.mesh import peering
from meshnet.model.addressing import Prefix
from meshnet.model.remote import EtcdConfig
from meshnet.model.token import TokenKind
from meshnet.pki.certificate import Authority
from meshnet.pki.store import PkiStore

SHORTEST_TTL_S = 10
LONGEST_TTL_S = 30 * 86400


class Joining:
    def __init__(self, local: LocalNode, kv: KV, pki: PkiStore, trust: Trust) -> None:
        self._local = local
        self._kv = kv
        self._pki = pki
        self._trust = trust
        self._tokens = Tokens(kv, local.cluster)

    async def create_token(
        self, *, kind: str, ttl_s: int, signer: bool, for_cluster: str | None
    ) -> dict[str, Any]:
        """The token's text exists in this answer and nowhere else."""
        if kind not in tuple(TokenKind):
            raise UsageError(f"token kind {kind!r} is none of {', '.join(TokenKind)}")
        if not SHORTEST_TTL_S <= ttl_s <= LONGEST_TTL_S:
            raise UsageError(f"a token lives {SHORTEST_TTL_S} s to 30 days, not {ttl_s} s")
        if not self._trust.signers:
            raise Refused("no signer of this cluster is known here: ask on a signer node")
        token, record = await self._tokens.create(
            TokenKind(kind),
            ttl_s=ttl_s,
            mesh_ca=self._pki.founding(Authority.MESH),
            signers=self._trust.signers,
            signer=signer,
            for_cluster=for_cluster,
        )
        return {
            "token": token.encode(),
            "id": record.id,
            "expires_at": record.expires_at.isoformat(),
        }

    async def list_tokens(self) -> list[dict[str, Any]]:
        return [
            {
                "id": record.id,
                "kind": record.kind,
                "signer": record.signer,
                "for_cluster": record.for_cluster,
                "expires_at": record.expires_at.isoformat(),
                "used": record.used_by is not None,
            }
            for record in await self._tokens.list()
        ]

    async def revoke_token(self, token_id: str) -> None:
        await self._tokens.revoke(token_id)

    async def join(self, token: str, *, plan: bool) -> dict[str, Any]:
        report = await mesh_join.join(
            token,
            kv=self._kv,
            cluster=self._local.cluster,
            pki=self._pki,
            tunnel=tunnel_side(self._local),
            plan=plan,
        )
        return attrs.asdict(report)

    async def add(
        self, cluster: str, config: EtcdConfig, pod_cidrs: tuple[Prefix, ...]
    ) -> dict[str, Any]:
        added = await peering.add(
            cluster, config, pod_cidrs, kv=self._kv, cluster=self._local.cluster, pki=self._pki
        )
        return attrs.asdict(added)

    async def access(self, cluster: str, *, renew: bool) -> dict[str, Any]:
        given = await peering.access(
            cluster, kv=self._kv, cluster=self._local.cluster, pki=self._pki, renew=renew
        )
        return {"cluster": self._local.cluster.name, **attrs.asdict(given)}

    async def leave(self, cluster: str) -> None:
        await mesh_join.leave(cluster, kv=self._kv)
