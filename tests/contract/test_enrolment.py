"""Becoming a node, and staying one, over the real enrolment port and a real etcd."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import grpc
import pytest

from meshnet.enrolment.joining import enrol_node
from meshnet.enrolment.messages import SERVICE
from meshnet.enrolment.nodes import Contacts
from meshnet.enrolment.server import EnrolmentServer
from meshnet.errors import Refused, TokenRefused, Unreachable
from meshnet.model.addressing import parse_address
from meshnet.model.token import TokenKind
from meshnet.pki.certificate import Authority, Profile
from meshnet.pki.store import PkiStore
from meshnet.pki.token import JoinToken, new_secret
from tests.support.enrolment import (
    ClusterWithEtcd,
    RunningCluster,
    client_of,
    cluster_with_etcd,
    running,
)
from tests.support.etcd import free_port

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]

FIRST = parse_address("192.0.2.1")
SECOND = parse_address("192.0.2.2")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterWithEtcd]:
    with cluster_with_etcd(tmp_path_factory.mktemp("clusters"), "east", 1) as made:
        yield made


@pytest.fixture
async def east(base: ClusterWithEtcd) -> AsyncIterator[RunningCluster]:
    async with running(base) as made:
        yield made


@pytest.fixture
def pki(tmp_path: Path) -> PkiStore:
    """Of a host that is in no cluster yet."""
    return PkiStore(tmp_path / "pki")


async def test_new_nodes_certificate_opens_etcd_and_its_mirrors_does_not(
    east: RunningCluster, pki: PkiStore
) -> None:
    token = await east.token(TokenKind.NODE)

    reply = await enrol_node(token, pki, node="east-2", addresses=(SECOND,))

    assert reply.cluster == east.trusted.cluster
    node = client_of(pki, Profile.NODE, reply.etcd_endpoints[0])
    assert await node.revision() > 0
    mirror = client_of(pki, Profile.MIRROR, reply.etcd_endpoints[0])
    with pytest.raises(Unreachable):
        await mirror.revision()
    await node.close()
    await mirror.close()
    assert pki.signers() == reply.signers
    assert not pki.ca_key_path(Authority.MESH).exists()


async def test_join_that_died_after_the_signers_answer_succeeds_when_tried_again(
    east: RunningCluster, pki: PkiStore
) -> None:
    token = await east.token(TokenKind.NODE)
    await enrol_node(token, pki, node="east-2", addresses=(SECOND,))
    pki.certificate_path(Profile.NODE).unlink()

    await enrol_node(token, pki, node="east-2", addresses=(SECOND,))

    assert pki.certificate(Profile.NODE) is not None


async def test_plan_writes_nothing_and_leaves_the_token_good(
    east: RunningCluster, pki: PkiStore
) -> None:
    token = await east.token(TokenKind.NODE)

    await enrol_node(token, pki, node="east-2", addresses=(SECOND,), plan=True)

    assert not pki.directory.exists()
    await enrol_node(token, pki, node="east-2", addresses=(SECOND,))


async def test_second_signer_admits_nodes_without_the_first(
    east: RunningCluster, pki: PkiStore, tmp_path: Path
) -> None:
    token = await east.token(TokenKind.NODE, signer=True)
    await enrol_node(token, pki, node="east-2", addresses=(FIRST,))
    contacts = Contacts(etcd_endpoints=(east.etcd.endpoint,), signers=())
    second = EnrolmentServer.of(east.kv, east.trusted.cluster, pki, lambda: contacts, east.tunnel)
    (port,) = await second.start(["127.0.0.1:0"])

    another = attrs.evolve(
        await east.token(TokenKind.NODE),
        endpoints=(f"127.0.0.1:{free_port()}", f"127.0.0.1:{port}"),
    )
    third = PkiStore(tmp_path / "third")
    await enrol_node(another, third, node="east-3", addresses=(SECOND,))

    node = client_of(third, Profile.NODE, east.etcd.endpoint)
    assert await node.revision() > 0
    await node.close()
    await second.stop()


async def join(token: JoinToken, pki: PkiStore) -> None:
    await enrol_node(token, pki, node="east-2", addresses=(SECOND,))


async def test_signers_refusals_reach_the_joiner_word_for_word(
    east: RunningCluster, pki: PkiStore, tmp_path: Path
) -> None:
    used = await east.token(TokenKind.NODE)
    await enrol_node(used, PkiStore(tmp_path / "x"), node="east-9", addresses=(SECOND,))
    unknown = attrs.evolve(used, secret=new_secret())
    good = await east.token(TokenKind.NODE)

    with pytest.raises(TokenRefused) as refusal:
        await join(used, pki)
    assert str(refusal.value) == (
        f"token {used.sha256[:12]} has been used already: ask for one of your own"
    )
    with pytest.raises(TokenRefused, match=r"^token is unknown to cluster 'east' or has expired"):
        await join(unknown, pki)
    with pytest.raises(Refused, match=r"^node 'east-1' is live in cluster 'east': choose another"):
        await enrol_node(good, pki, node="east-1", addresses=(SECOND,))


async def test_mesh_token_is_refused_before_anything_is_sent(
    east: RunningCluster, pki: PkiStore
) -> None:
    token = attrs.evolve(await east.token(TokenKind.MESH), endpoints=("127.0.0.1:1",))

    with pytest.raises(TokenRefused) as refusal:
        await join(token, pki)

    assert str(refusal.value) == (
        "token of cluster 'east' is for `meshnet mesh join`, not for `meshnet cluster join`"
    )


async def test_no_signer_answers(east: RunningCluster, pki: PkiStore) -> None:
    dead = f"127.0.0.1:{free_port()}"
    token = attrs.evolve(await east.token(TokenKind.NODE), endpoints=(dead,))

    with pytest.raises(Unreachable) as failure:
        await join(token, pki)

    assert str(failure.value) == (
        f"no signer of cluster 'east' answers: {dead}: connection refused"
    )


async def test_nonsense_sent_to_a_signer_is_refused(east: RunningCluster) -> None:
    credentials = grpc.ssl_channel_credentials(east.trusted.signer.mesh.certificate.pem)
    async with grpc.aio.secure_channel(east.signer, credentials) as channel:
        for data in (b"", b"[]", b'{"secret": 1}', b"[" * 5000):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await channel.unary_unary(f"/{SERVICE}/JoinNode")(data, timeout=5)
            assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert (error.value.details() or "").startswith("message is faulty: ")
