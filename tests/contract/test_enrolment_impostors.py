"""A joiner and somebody on the signer's port who is not what it seems."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import attrs
import grpc
import pytest

from meshnet.enrolment.joining import enrol_node
from meshnet.enrolment.messages import SERVICE, JoinNodeReply, JoinNodeRequest, decode, encode
from meshnet.enrolment.nodes import Contacts, NodeAdmission
from meshnet.enrolment.tokens import Tokens
from meshnet.errors import Refused
from meshnet.model.addressing import parse_address
from meshnet.model.token import TokenKind
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import Authority, Profile, Subject, generate_key, make_csr
from meshnet.pki.store import PkiStore
from meshnet.pki.token import JoinToken
from tests.support.enrolment import (
    ClusterWithEtcd,
    RunningCluster,
    cluster_with_etcd,
    running,
)
from tests.support.trust import TrustedCluster

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


async def join(token: JoinToken, pki: PkiStore) -> None:
    await enrol_node(token, pki, node="east-2", addresses=(SECOND,))


Answer = Callable[[bytes], Awaitable[bytes]]
Lie = Callable[[JoinNodeReply], JoinNodeReply]


async def say_nothing(_: bytes) -> bytes:
    return b"{}"


@contextlib.asynccontextmanager
async def listener(
    certificate: bytes, key: bytes, answer: Answer = say_nothing
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Whoever it is, it writes down what it is told, and says what it likes."""
    heard: list[bytes] = []

    async def hear(data: bytes, _: grpc.aio.ServicerContext) -> bytes:
        heard.append(data)
        return await answer(data)

    server = grpc.aio.server()
    handlers = {"JoinNode": grpc.unary_unary_rpc_method_handler(hear)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield f"127.0.0.1:{port}", heard
    await server.stop(grace=None)


async def test_secret_is_sent_to_nobody_that_the_tokens_ca_has_not_signed_as_a_signer(
    east: RunningCluster, pki: PkiStore, tmp_path: Path
) -> None:
    """Neither to a stranger of the same name, nor to a gateway of the very cluster."""
    twin = TrustedCluster.create(tmp_path / "twin", "east", 1).pki.pair(Profile.ENROLMENT)
    gateway = east.trusted.pki.pair(Profile.GATEWAY)
    for certificate, key in (twin, gateway):
        async with listener(certificate, key) as (endpoint, heard):
            token = attrs.evolve(await east.token(TokenKind.NODE), endpoints=(endpoint,))

            with pytest.raises(Refused) as refusal:
                await join(token, pki)

            assert heard == []
            assert str(refusal.value) == (
                f"{endpoint} is no signer of cluster 'east': its certificate is not signed by "
                "that cluster's mesh CA, or a clock is wrong"
            )


async def test_signer_that_sends_nonsense_is_refused(east: RunningCluster, pki: PkiStore) -> None:
    async with listener(*east.trusted.pki.pair(Profile.ENROLMENT)) as (endpoint, heard):
        token = attrs.evolve(await east.token(TokenKind.NODE), endpoints=(endpoint,))

        with pytest.raises(
            Refused, match=r"^message is faulty: required field missing @ JoinNodeReply\.cluster; "
        ):
            await join(token, pki)

        assert len(heard) == 1


def with_another_mesh_ca(reply: JoinNodeReply) -> JoinNodeReply:
    other = Signer.create("east").mesh.certificate.pem.decode()
    return attrs.evolve(reply, authorities={**reply.authorities, Authority.MESH: other})


def from_another_cluster(reply: JoinNodeReply) -> JoinNodeReply:
    return attrs.evolve(reply, cluster=attrs.evolve(reply.cluster, name="west"))


def with_certificates_swapped(reply: JoinNodeReply) -> JoinNodeReply:
    swapped = {**reply.certificates, Profile.MIRROR: reply.certificates[Profile.NODE]}
    return attrs.evolve(reply, certificates=swapped)


def signed_again(east: RunningCluster, key: bytes, node: str) -> Lie:
    """The same names or others, by the true CA, for whatever key."""

    def lie(reply: JoinNodeReply) -> JoinNodeReply:
        subject = Subject.of(Profile.NODE, "east", node, (SECOND,))
        forged = east.trusted.signer.sign(make_csr(key, node), subject).pem.decode()
        return attrs.evolve(reply, certificates={**reply.certificates, Profile.NODE: forged})

    return lie


async def told(east: RunningCluster, pki: PkiStore, lie: Lie) -> str:
    """What the joiner says to a signer that bears the right certificate and lies."""
    contacts = Contacts(etcd_endpoints=(), signers=())
    cluster = east.trusted.cluster
    honest = NodeAdmission(
        east.kv, cluster, lambda: east.trusted.signer, Tokens(east.kv, cluster), lambda: contacts
    )

    async def answer(data: bytes) -> bytes:
        return encode(lie(await honest.join(decode(data, JoinNodeRequest))))

    async with listener(*east.trusted.pki.pair(Profile.ENROLMENT), answer) as (endpoint, _):
        token = attrs.evolve(await east.token(TokenKind.NODE), endpoints=(endpoint,))
        with pytest.raises(Refused) as refusal:
            await join(token, pki)
    assert pki.certificate(Profile.NODE) is None, "nothing of it is kept"
    return str(refusal.value)


async def test_answer_of_a_signer_is_checked_before_it_is_kept(
    east: RunningCluster, pki: PkiStore
) -> None:
    ours, foreign = pki.ensure_key(Profile.NODE), generate_key()

    assert await told(east, pki, with_another_mesh_ca) == (
        "signer of cluster 'east' names another mesh CA than the token"
    )
    assert await told(east, pki, from_another_cluster) == (
        "signer of cluster 'east' answers for cluster 'west'"
    )
    assert await told(east, pki, signed_again(east, foreign, "east-2")) == (
        "signer answers with a node certificate for another key"
    )
    assert await told(east, pki, signed_again(east, ours, "east-9")) == (
        "signer answers with a certificate for meshnet://east/node/east-9"
    )
    assert "is not signed by" in await told(east, pki, with_certificates_swapped)
