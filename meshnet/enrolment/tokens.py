"""Join tokens as etcd keeps them: a hash, a lease, and who has used it up.

A used token stays until its lease ends, so that its user may try again after a failure
and anybody else hears "used" and not "unknown".
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import attrs

from meshnet.errors import Conflict, LeaseLost, NotFound, TokenRefused
from meshnet.kvstore.api import KV, Operation, Put, Unchanged
from meshnet.kvstore.patience import ride
from meshnet.model.cluster import Cluster
from meshnet.model.token import TokenKind, TokenRecord
from meshnet.pki.certificate import Certificate
from meshnet.pki.token import JoinToken, new_secret, secret_sha256
from meshnet.registry import codec, schema

SHOWN = 12
"""Characters of the hash that operators see as the token's id."""


@attrs.frozen
class HeldToken:
    """A token as it lies in etcd, at one revision."""

    key: str
    record: TokenRecord
    revision: int
    lease: int

    def allow(self, claimant: str) -> HeldToken:
        """Itself, or TokenRefused when somebody else has used it up."""
        if self.record.used_by not in (None, claimant):
            raise TokenRefused(
                f"token {self.record.id} has been used already: ask for one of your own"
            )
        return self

    def consume(self, claimant: str) -> tuple[Unchanged, tuple[Operation, ...]]:
        """The compare and the writes by which one txn uses it up, once."""
        compare = Unchanged(self.key, self.revision)
        if self.record.used_by == claimant:
            return compare, ()
        used = attrs.evolve(self.record, used_by=claimant)
        return compare, (Put(self.key, codec.encode_token(used), self.lease),)


class Tokens:
    """The tokens of one cluster."""

    def __init__(
        self, kv: KV, cluster: Cluster, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._kv = kv
        self._cluster = cluster
        self._clock = clock

    async def create(
        self,
        kind: TokenKind,
        *,
        ttl_s: int,
        mesh_ca: Certificate,
        signers: tuple[str, ...],
        signer: bool = False,
        for_cluster: str | None = None,
    ) -> tuple[JoinToken, TokenRecord]:
        """A new token. Its secret exists in the answer and nowhere else."""
        token = JoinToken(
            cluster=self._cluster.name,
            cluster_id=self._cluster.id,
            kind=kind,
            endpoints=signers,
            ca=mesh_ca,
            secret=new_secret(),
        )
        record = TokenRecord(
            id=token.sha256[:SHOWN],
            kind=kind,
            signer=signer,
            for_cluster=for_cluster,
            expires_at=self._clock() + timedelta(seconds=ttl_s),
        )
        lease = await self._kv.grant(ttl_s)
        await self._kv.put(schema.token(token.sha256), codec.encode_token(record), lease=lease)
        return token, record

    async def list(self) -> tuple[TokenRecord, ...]:
        listing = await self._kv.list(schema.TOKENS)
        records = (codec.decode_token(pair.key, pair.value) for pair in listing.pairs)
        return tuple(sorted(records, key=lambda record: record.expires_at))

    async def revoke(self, token_id: str) -> None:
        """Raises NotFound."""
        listing = await self._kv.list(schema.TOKENS)
        for pair in listing.pairs:
            if codec.decode_token(pair.key, pair.value).id == token_id:
                await ride(partial(self._kv.delete, pair.key))
                return
        raise NotFound(f"token {token_id} does not exist: it was used, revoked, or has expired")

    async def find(self, secret: bytes, kind: TokenKind | None = None) -> HeldToken:
        """The token of that secret. Raises TokenRefused: unknown, expired, other kind.

        Without a kind, one of either."""
        key = schema.token(secret_sha256(secret))
        pair = await self._kv.get(key)
        record = codec.decode_token(key, pair.value) if pair is not None else None
        if pair is None or record is None or record.expires_at <= self._clock():
            raise TokenRefused(
                f"token is unknown to cluster {self._cluster.name!r} or has expired: "
                "ask for a new one"
            )
        if kind not in (None, record.kind):
            raise TokenRefused(f"token {record.id} is for a {record.kind}, not for a {kind}")
        return HeldToken(key, record, pair.mod_revision, pair.lease)

    async def use(self, token: HeldToken, claimant: str) -> None:
        """Use it up for that claimant. Raises TokenRefused: somebody else was faster."""
        compare, writes = token.consume(claimant)
        try:
            result = await self._kv.txn((compare,), writes)
        except LeaseLost as error:
            raise TokenRefused(f"token {token.record.id} has just expired") from error
        if not result.succeeded:
            raise Conflict(f"token {token.record.id} is being used by another request: try again")
