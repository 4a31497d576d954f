"""Two clusters become a mesh, or stay as they were: the whole of `mesh join`, for real.

east: etcd, gateway, enrolment ◀── join ── west: etcd, gateway, enrolment
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import attrs
import pytest

from meshnet.enrolment.disclosure import Disclosure
from meshnet.enrolment.inviter import Introduction, Inviter
from meshnet.enrolment.nodes import Contacts, NodeAdmission
from meshnet.enrolment.probe import GatewayProbe
from meshnet.enrolment.remotes import Remotes
from meshnet.enrolment.server import EnrolmentServer
from meshnet.enrolment.tokens import Tokens
from meshnet.enrolment.tunnel import TunnelResponder
from meshnet.errors import NotFound, Refused, TokenRefused, Unreachable
from meshnet.kvstore.etcd import EtcdKV
from meshnet.mesh.join import leave
from meshnet.model.addressing import parse_prefix
from meshnet.model.token import TokenKind
from meshnet.pki.token import JoinToken
from meshnet.registry import schema
from tests.support.enrolment import ClusterWithEtcd, RunningCluster, cluster_with_etcd, running
from tests.support.etcd import free_port

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def bases(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ClusterWithEtcd, ClusterWithEtcd]]:
    directory = tmp_path_factory.mktemp("clusters")
    with (
        cluster_with_etcd(directory, "east", 1) as east,
        cluster_with_etcd(directory, "west", 2) as west,
    ):
        yield east, west


@attrs.frozen
class Pair:
    east: RunningCluster
    west: RunningCluster

    async def remotes(self) -> tuple[dict[str, str], dict[str, str]]:
        return await self.east.remotes(), await self.west.remotes()


NEITHER: tuple[dict[str, str], dict[str, str]] = ({}, {})


@pytest.fixture
async def pair(bases: tuple[ClusterWithEtcd, ClusterWithEtcd]) -> AsyncIterator[Pair]:
    async with running(bases[0]) as east, running(bases[1]) as west:
        yield Pair(east, west)


async def reads(reader: RunningCluster, other: RunningCluster) -> bool:
    """Whether `reader`'s mirror gets `other`'s nodes through its gateway."""
    kv = EtcdKV([other.gateway], reader.trusted.mirror_tls(other.trusted))
    try:
        return len((await kv.list(schema.nodes(other.name))).pairs) == 1
    finally:
        await kv.close()


async def test_after_one_join_each_cluster_reads_the_other(pair: Pair) -> None:
    token = await pair.east.token(TokenKind.MESH)

    report = await pair.west.join(token)

    assert (report.cluster, report.id, report.joined) == ("east", 1, True)
    assert all(check.ok for check in report.checks)
    assert report.checks[-1].check == f"gateway {pair.east.gateway}"
    assert await pair.remotes() == ({"west": "committed"}, {"east": "committed"})
    assert await reads(pair.west, pair.east)
    assert await reads(pair.east, pair.west)


async def test_plan_checks_on_both_sides_and_changes_nothing(pair: Pair) -> None:
    token = await pair.east.token(TokenKind.MESH)

    report = await pair.west.join(token, plan=True)

    assert not report.joined
    assert all(check.ok for check in report.checks)
    assert await pair.remotes() == NEITHER
    assert (await pair.west.join(token)).joined, "the token is still good"


async def test_leaving_cuts_the_other_off_and_joining_again_mends_it(pair: Pair) -> None:
    await pair.west.join(await pair.east.token(TokenKind.MESH))

    await leave("west", kv=pair.east.kv)
    again = await pair.west.join(await pair.east.token(TokenKind.MESH))

    assert again.joined
    assert await pair.remotes() == ({"west": "committed"}, {"east": "committed"})


async def test_leaving_a_stranger_is_an_error(pair: Pair) -> None:
    with pytest.raises(NotFound) as error:
        await leave("north", kv=pair.east.kv)

    assert str(error.value) == "cluster 'north' is not in the mesh: see `meshnet mesh status`"


async def test_joiner_without_reachable_gateways_leaves_no_half_behind(pair: Pair) -> None:
    dead = f"127.0.0.1:{free_port()}"

    with pytest.raises(Refused) as refusal:
        await pair.west.join(await pair.east.token(TokenKind.MESH), gateways=[dead])

    assert str(refusal.value) == (
        f"no gateway of cluster 'west' can be reached ({dead}: connection refused): open "
        f"{dead.rpartition(':')[2]}/tcp between the clusters"
    )
    assert await pair.remotes() == NEITHER


async def test_inviter_without_reachable_gateways_leaves_no_half_behind(pair: Pair) -> None:
    await pair.east.kv.delete(schema.cluster_config("east"))

    with pytest.raises(Refused) as refusal:
        await pair.west.join(await pair.east.token(TokenKind.MESH))

    assert str(refusal.value) == (
        "no gateway of cluster 'east' can be reached: cilium/cluster-config/east does not exist "
        "yet: its cluster has no leader"
    )
    assert await pair.remotes() == NEITHER


async def test_gateway_that_serves_another_id_than_was_said_is_refused(pair: Pair) -> None:
    await pair.east.kv.put(schema.cluster_config("east"), b'{"id":7}')

    with pytest.raises(Refused, match=r"cilium/cluster-config/east has id 7, but the cluster said"):
        await pair.west.join(await pair.east.token(TokenKind.MESH))

    assert await pair.remotes() == NEITHER


async def test_join_succeeds_after_a_failed_one_with_the_same_token(pair: Pair) -> None:
    token = await pair.east.token(TokenKind.MESH)
    with pytest.raises(Refused):
        await pair.west.join(token, gateways=[f"127.0.0.1:{free_port()}"])

    assert (await pair.west.join(token)).joined


async def test_token_of_our_own_cluster_is_refused_before_it_is_sent(pair: Pair) -> None:
    token = attrs.evolve(await pair.east.token(TokenKind.MESH), endpoints=("127.0.0.1:1",))

    with pytest.raises(Refused, match=r"^both clusters are named 'east': set one of them up"):
        await pair.east.join(token)
    report = await pair.east.join(token, plan=True)

    assert [check.check for check in report.checks if not check.ok] == ["name", "id", "ca"]


async def test_token_from_a_cluster_with_our_id_is_refused_before_it_is_sent(pair: Pair) -> None:
    token = attrs.evolve(
        await pair.east.token(TokenKind.MESH), cluster_id=2, endpoints=("127.0.0.1:1",)
    )

    with pytest.raises(Refused) as refusal:
        await pair.west.join(token)

    assert str(refusal.value) == (
        "clusters 'west' and 'east' both have id 2: set one of them up with another --id"
    )


async def test_overlapping_pod_cidr_is_refused_naming_both(pair: Pair) -> None:
    overlapping = attrs.evolve(
        pair.west,
        trusted=attrs.evolve(
            pair.west.trusted,
            cluster=attrs.evolve(
                pair.west.trusted.cluster, pod_cidrs=(parse_prefix("10.1.128.0/17"),)
            ),
        ),
    )
    token = await pair.east.token(TokenKind.MESH)

    overlap = (
        "PodCIDR 10.1.128.0/17 of cluster 'west' overlaps PodCIDR 10.1.0.0/16 of cluster 'east'"
    )

    with pytest.raises(Refused) as refusal:
        await overlapping.join(token)
    report = await overlapping.join(token, plan=True)

    assert str(refusal.value) == overlap
    failed = [(check.check, check.evidence) for check in report.checks if not check.ok]
    assert failed == [("pod-cidr", overlap)]
    assert await pair.remotes() == NEITHER


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "not a join token: it must start with 'mnt1.'"),
        ("mnt1.AAAA", "join token of 9 characters is truncated or damaged: copy it again"),
    ],
)
async def test_text_that_is_no_token_is_refused(pair: Pair, text: str, message: str) -> None:
    with pytest.raises(TokenRefused) as refusal:
        JoinToken.decode(text)

    assert str(refusal.value) == message


async def test_refused_tokens_reach_the_joiner_with_their_reason(pair: Pair) -> None:
    for_north = await pair.east.token(TokenKind.MESH, for_cluster="north")
    revoked = await pair.east.token(TokenKind.MESH)
    await Tokens(pair.east.kv, pair.east.trusted.cluster).revoke(revoked.sha256[:12])
    node = await pair.east.token(TokenKind.NODE)

    with pytest.raises(TokenRefused, match=r"^token \w{12} is for cluster 'north', not for 'west'"):
        await pair.west.join(for_north)
    with pytest.raises(TokenRefused, match=r"^token is unknown to cluster 'east' or has expired:"):
        await pair.west.join(revoked)
    with pytest.raises(TokenRefused, match=r"is for `meshnet cluster join`, not for `meshnet mesh"):
        await pair.west.join(node)
    assert await pair.remotes() == NEITHER


async def test_unreachable_signer_leaves_nothing_behind(pair: Pair) -> None:
    dead = f"127.0.0.1:{free_port()}"
    token = attrs.evolve(await pair.east.token(TokenKind.MESH), endpoints=(dead,))

    with pytest.raises(Unreachable, match=r"^no signer of cluster 'east' answers: 127.0.0.1:"):
        await pair.west.join(token)

    assert await pair.remotes() == NEITHER


async def test_signer_that_answers_as_another_cluster_is_refused(pair: Pair) -> None:
    """It holds east's enrolment certificate, and says it is somebody else."""
    east = pair.east.trusted
    liar = attrs.evolve(east.cluster, id=9)
    tokens = Tokens(pair.east.kv, east.cluster)
    introduction = Introduction(pair.east.kv, liar, east.pki)
    contacts = Contacts(etcd_endpoints=(), signers=())
    server = EnrolmentServer(
        NodeAdmission(pair.east.kv, liar, lambda: east.signer, tokens, lambda: contacts),
        Inviter(tokens, Remotes(pair.east.kv), introduction, GatewayProbe(east.pki)),
        TunnelResponder(pair.east.tunnel),
        tokens,
        Disclosure(pair.east.kv, "east", east.pki, lambda: contacts),
        east.pki,
    )
    (port,) = await server.start(["127.0.0.1:0"])
    token = attrs.evolve(await pair.east.token(TokenKind.MESH), endpoints=(f"127.0.0.1:{port}",))

    with pytest.raises(Refused, match=r"^signer of cluster 'east' answers as cluster 'east' with "):
        await pair.west.join(token)

    assert await pair.remotes() == NEITHER
    await server.stop()
