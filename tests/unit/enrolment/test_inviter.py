"""The inviting side of a mesh join: what it checks, stores, and takes back."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

import attrs
import pytest

from meshnet.enrolment.inviter import Introduction, Inviter
from meshnet.enrolment.messages import JoinMeshRequest, MeshMember
from meshnet.enrolment.remotes import PENDING_TTL_S, Remotes
from meshnet.enrolment.tokens import Tokens
from meshnet.errors import Conflict, PoisonedKey, Refused, TokenRefused
from meshnet.kvstore.memory import MemoryKV
from meshnet.model.ability import Abilities
from meshnet.model.addressing import parse_address, parse_prefix
from meshnet.model.check import Check
from meshnet.model.cluster import Cluster
from meshnet.model.node import Node
from meshnet.model.remote import RemoteState
from meshnet.model.token import TokenKind
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import Authority
from meshnet.pki.store import PkiStore
from meshnet.registry import codec, schema

EAST = Cluster(name="east", id=1, pod_cidrs=(parse_prefix("10.1.0.0/16"),))
EAST_PKI = PkiStore(Path(mkdtemp()))
Signer.create("east").save(EAST_PKI)
EAST_CA = EAST_PKI.founding(Authority.MESH)
CAS = {name: Signer.create(name).mesh.certificate for name in ("west", "north")}


def member(name: str = "west", number: int = 2) -> MeshMember:
    return MeshMember(
        name=name,
        id=number,
        mesh_ca=CAS[name].pem.decode(),
        pod_cidrs=(parse_prefix(f"10.{number}.0.0/16"),),
        gateways=("192.168.0.2:4243",),
    )


@attrs.define
class Reachability:
    """What a probe of the joiner's gateways finds."""

    detail: str = ""

    async def __call__(self, probed: MeshMember) -> tuple[Check, ...]:
        (gateway,) = probed.gateways
        return (Check(check=f"gateway {gateway}", ok=not self.detail, evidence=self.detail),)


@attrs.define
class Clock:
    """Seconds that a test moves."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@attrs.frozen
class Scene:
    clock: Clock
    kv: MemoryKV
    tokens: Tokens
    remotes: Remotes
    probe: Reachability
    inviter: Inviter

    @classmethod
    def create(cls) -> Scene:
        clock = Clock()
        kv = MemoryKV(clock)
        tokens, remotes, probe = Tokens(kv, EAST), Remotes(kv), Reachability()
        inviter = Inviter(tokens, remotes, Introduction(kv, EAST, EAST_PKI), probe)
        return cls(clock, kv, tokens, remotes, probe, inviter)

    async def request(
        self, joiner: MeshMember | None = None, *, for_cluster: str | None = None
    ) -> JoinMeshRequest:
        """With a token of its own."""
        token, _ = await self.tokens.create(
            TokenKind.MESH, ttl_s=3600, mesh_ca=EAST_CA, signers=(), for_cluster=for_cluster
        )
        return JoinMeshRequest(secret=token.secret, member=joiner or member())

    async def state(self, cluster: str = "west") -> RemoteState | None:
        held = await self.remotes.find(cluster)
        return None if held is None else held.remote.state

    async def used(self, request: JoinMeshRequest) -> bool:
        return (await self.tokens.find(request.secret, TokenKind.MESH)).record.used_by is not None


@pytest.fixture
async def scene() -> Scene:
    made = Scene.create()
    node = Node(name="e1", cluster="east", cluster_id=1, addresses=(parse_address("192.168.0.1"),))
    await made.kv.put(schema.node("east", "e1"), codec.encode_node(node))
    return made


async def test_prepare_tells_what_we_are_and_holds_the_joiner_as_pending(scene: Scene) -> None:
    request = await scene.request()

    reply = await scene.inviter.prepare(request)

    assert attrs.evolve(reply.member, abilities=Abilities()) == MeshMember(
        name="east",
        id=1,
        mesh_ca=EAST_CA.pem.decode(),
        pod_cidrs=EAST.pod_cidrs,
        gateways=("192.168.0.1:4243",),
    )
    assert await scene.state() is RemoteState.PENDING
    assert await scene.used(request)


async def test_plan_says_the_same_and_stores_nothing(scene: Scene) -> None:
    request = await scene.request()

    reply = await scene.inviter.plan(request)

    assert reply.member.name == "east"
    assert await scene.state() is None
    assert not await scene.used(request)


async def test_commit_makes_it_a_remote_for_good(scene: Scene) -> None:
    request = await scene.request()
    await scene.inviter.prepare(request)

    await scene.inviter.commit(request)
    scene.clock.now += 10 * PENDING_TTL_S

    assert await scene.state() is RemoteState.COMMITTED


async def test_pending_half_goes_away_by_itself_after_two_minutes(scene: Scene) -> None:
    await scene.inviter.prepare(await scene.request())
    scene.clock.now += PENDING_TTL_S

    assert await scene.state() is None


async def test_commit_after_the_pending_half_went_is_refused(scene: Scene) -> None:
    request = await scene.request()
    await scene.inviter.prepare(request)
    scene.clock.now += PENDING_TTL_S

    with pytest.raises(Conflict) as refusal:
        await scene.inviter.commit(request)

    assert str(refusal.value) == ("cluster 'west' is not pending any more: join again within 120 s")


async def test_joiner_whose_gateways_cannot_be_reached_is_not_committed(scene: Scene) -> None:
    request = await scene.request()
    await scene.inviter.prepare(request)
    scene.probe.detail = "192.168.0.2:4243 is unreachable: connection refused"

    with pytest.raises(Refused) as refusal:
        await scene.inviter.commit(request)

    assert str(refusal.value) == (
        "no gateway of cluster 'west' can be reached: "
        "192.168.0.2:4243 is unreachable: connection refused"
    )
    assert await scene.state() is RemoteState.PENDING


async def test_abort_takes_back_the_half_whether_pending_or_committed(scene: Scene) -> None:
    request = await scene.request()
    await scene.inviter.prepare(request)
    await scene.inviter.abort(request)
    assert await scene.state() is None

    await scene.inviter.prepare(request)
    await scene.inviter.commit(request)
    await scene.inviter.abort(request)
    assert await scene.state() is None


async def test_failed_second_join_does_not_cut_what_works(scene: Scene) -> None:
    first = await scene.request()
    await scene.inviter.prepare(first)
    await scene.inviter.commit(first)
    second = await scene.request()

    await scene.inviter.prepare(second)
    assert await scene.state() is RemoteState.COMMITTED
    await scene.inviter.abort(second)

    assert await scene.state() is RemoteState.COMMITTED


async def test_token_for_one_cluster_is_refused_to_another(scene: Scene) -> None:
    request = await scene.request(for_cluster="north")

    with pytest.raises(TokenRefused, match=r"^token [0-9a-f]{12} is for cluster 'north', not for "):
        await scene.inviter.prepare(request)

    assert await scene.state() is None


async def test_used_token_is_good_for_the_same_ca_alone(scene: Scene) -> None:
    request = await scene.request()
    await scene.inviter.prepare(request)
    thief = attrs.evolve(request, member=member("north", 3))

    await scene.inviter.prepare(request)
    for step in (
        scene.inviter.plan,
        scene.inviter.prepare,
        scene.inviter.commit,
        scene.inviter.abort,
    ):
        with pytest.raises(TokenRefused, match=r"has been used already: ask for one of your own$"):
            await step(thief)

    assert await scene.state() is RemoteState.PENDING
    assert await scene.state("north") is None


async def test_commit_without_prepare_is_refused(scene: Scene) -> None:
    with pytest.raises(Conflict, match=r"^cluster 'west' has not prepared: join again$"):
        await scene.inviter.commit(await scene.request())


@pytest.mark.parametrize(
    ("joiner", "message"),
    [
        (member("west", 1), "clusters 'east' and 'west' both have id 1"),
        (
            attrs.evolve(member(), pod_cidrs=(parse_prefix("10.1.4.0/22"),)),
            "PodCIDR 10.1.4.0/22 of cluster 'west' overlaps PodCIDR 10.1.0.0/16 of cluster 'east'",
        ),
        (attrs.evolve(member(), name="east"), "both clusters are named 'east'"),
    ],
)
async def test_colliding_joiner_is_refused_and_costs_no_token(
    scene: Scene, joiner: MeshMember, message: str
) -> None:
    request = await scene.request(joiner)

    with pytest.raises(Refused) as refusal:
        await scene.inviter.prepare(request)

    assert str(refusal.value).startswith(message)
    assert not await scene.used(request)
    assert await scene.remotes.list() == ()


async def test_of_two_that_collide_and_come_at_once_one_at_most_gets_in(scene: Scene) -> None:
    """Both were checked before either was written; the check after the write decides."""
    west = await scene.request()
    north = await scene.request(attrs.evolve(member("north", 3), pod_cidrs=member().pod_cidrs))
    checks = scene.inviter._introduction.neighbourhood
    before = await checks()
    await scene.inviter.prepare(west)
    stale = iter([before])

    async def late() -> object:
        return next(stale, None) or await checks()

    scene.inviter._introduction.neighbourhood = late  # type: ignore[method-assign,assignment]
    with pytest.raises(Refused, match=r"overlaps PodCIDR 10\.2\.0\.0/16 of cluster 'west'$"):
        await scene.inviter.prepare(north)

    assert [remote.name for remote in await scene.remotes.list()] == ["west"]


async def test_poisoned_remote_stops_joins_since_nobody_can_check_against_it(scene: Scene) -> None:
    await scene.kv.put(schema.remote("north"), b"hello")

    with pytest.raises(PoisonedKey, match=r"^meshnet/v1/remotes/north: not JSON"):
        await scene.inviter.prepare(await scene.request())
