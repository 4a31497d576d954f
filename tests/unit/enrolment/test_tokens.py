"""A token is used once, by one claimant, before its time is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from meshnet.enrolment.tokens import Tokens
from meshnet.errors import Conflict, NotFound, TokenRefused
from meshnet.kvstore.memory import MemoryKV
from meshnet.model.addressing import parse_prefix
from meshnet.model.cluster import Cluster
from meshnet.model.token import TokenKind, TokenRecord
from meshnet.pki.ca import Signer
from meshnet.pki.token import JoinToken, new_secret
from meshnet.registry import schema

EAST = Cluster(name="east", id=1, pod_cidrs=(parse_prefix("10.1.0.0/16"),))
CA = Signer.create("east").mesh.certificate


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def utc(self) -> datetime:
        return datetime(2026, 5, 1, 12, tzinfo=UTC) + timedelta(seconds=self.seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kv(clock: Clock) -> MemoryKV:
    return MemoryKV(clock.monotonic)


@pytest.fixture
def tokens(kv: MemoryKV, clock: Clock) -> Tokens:
    return Tokens(kv, EAST, clock.utc)


async def create(tokens: Tokens, kind: TokenKind = TokenKind.NODE) -> tuple[JoinToken, TokenRecord]:
    return await tokens.create(kind, ttl_s=3600, mesh_ca=CA, signers=("10.0.0.1:4244",))


UNKNOWN = r"^token is unknown to cluster 'east' or has expired: ask for a new one$"


async def test_created_token_is_found_by_its_secret(tokens: Tokens) -> None:
    token, record = await create(tokens)

    assert (await tokens.find(token.secret, TokenKind.NODE)).record == record
    assert (token.cluster, token.cluster_id, token.endpoints) == ("east", 1, ("10.0.0.1:4244",))


async def test_etcd_never_holds_the_secret(tokens: Tokens, kv: MemoryKV) -> None:
    token, record = await create(tokens)

    (pair,) = (await kv.list(schema.TOKENS)).pairs

    assert pair.key == f"meshnet/v1/tokens/{token.sha256}"
    assert token.secret not in pair.value
    assert token.secret.hex() not in pair.key + pair.value.decode()
    assert record.id == token.sha256[:12]


async def test_unknown_secret_is_refused(tokens: Tokens) -> None:
    with pytest.raises(TokenRefused, match=UNKNOWN):
        await tokens.find(new_secret(), TokenKind.NODE)


async def test_expired_token_is_gone_with_its_lease(tokens: Tokens, clock: Clock) -> None:
    token, _ = await create(tokens)
    clock.seconds = 3600

    with pytest.raises(TokenRefused, match=UNKNOWN):
        await tokens.find(token.secret, TokenKind.NODE)
    assert await tokens.list() == ()


async def test_token_expires_by_its_date_though_a_restart_of_etcd_has_renewed_its_lease(
    tokens: Tokens, clock: Clock, kv: MemoryKV
) -> None:
    token, _ = await create(tokens)
    clock.seconds = 3000
    (pair,) = (await kv.list(schema.TOKENS)).pairs
    await kv.keep_alive(pair.lease)  # what a restarted etcd does to every lease
    clock.seconds = 3601

    with pytest.raises(TokenRefused, match=UNKNOWN):
        await tokens.find(token.secret, TokenKind.NODE)


async def test_token_of_the_other_kind_is_refused(tokens: Tokens) -> None:
    token, record = await create(tokens)

    with pytest.raises(TokenRefused) as refusal:
        await tokens.find(token.secret, TokenKind.MESH)

    assert str(refusal.value) == f"token {record.id} is for a node, not for a mesh"


async def test_used_token_is_good_for_its_user_and_for_nobody_else(tokens: Tokens) -> None:
    token, record = await create(tokens)
    await tokens.use(await tokens.find(token.secret, TokenKind.NODE), "key-1")

    held = await tokens.find(token.secret, TokenKind.NODE)

    assert held.allow("key-1") is held
    await tokens.use(held, "key-1")
    with pytest.raises(TokenRefused) as refusal:
        held.allow("key-2")
    assert str(refusal.value) == f"token {record.id} has been used already: ask for one of your own"


async def test_two_who_found_it_unused_cannot_both_use_it(tokens: Tokens) -> None:
    token, _ = await create(tokens)
    first = await tokens.find(token.secret, TokenKind.NODE)
    second = await tokens.find(token.secret, TokenKind.NODE)

    await tokens.use(first, "key-1")

    with pytest.raises(Conflict, match=r"is being used by another request: try again$"):
        await tokens.use(second, "key-2")


async def test_used_token_still_ends_with_its_lease(tokens: Tokens, clock: Clock) -> None:
    token, _ = await create(tokens)
    await tokens.use(await tokens.find(token.secret, TokenKind.NODE), "key-1")
    clock.seconds = 3600

    assert await tokens.list() == ()


async def test_token_that_expires_between_look_and_use_is_refused(
    tokens: Tokens, clock: Clock
) -> None:
    token, record = await create(tokens)
    held = await tokens.find(token.secret, TokenKind.NODE)
    clock.seconds = 3600

    with pytest.raises((TokenRefused, Conflict), match=record.id):
        await tokens.use(held, "key-1")


async def test_revoked_token_is_unknown_afterwards(tokens: Tokens) -> None:
    token, record = await create(tokens)
    _, other = await create(tokens, TokenKind.MESH)

    await tokens.revoke(record.id)

    assert await tokens.list() == (other,)
    with pytest.raises(TokenRefused, match=UNKNOWN):
        await tokens.find(token.secret, TokenKind.NODE)
    with pytest.raises(NotFound, match=rf"^token {record.id} does not exist: it was used, revoked"):
        await tokens.revoke(record.id)
