"""Who becomes a node of the cluster, and who stays one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from meshnet.enrolment.messages import JoinNodeReply, JoinNodeRequest, RenewRequest
from meshnet.enrolment.nodes import NODE_PROFILES, Contacts, NodeAdmission, revoke
from meshnet.enrolment.tokens import Tokens
from meshnet.errors import InvalidName, PermissionRefused, Refused, TokenRefused
from meshnet.kvstore.memory import MemoryKV
from meshnet.model.addressing import Address, parse_address, parse_prefix
from meshnet.model.cluster import Cluster
from meshnet.model.node import Node
from meshnet.model.token import TokenKind
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import (
    Authority,
    Certificate,
    Profile,
    Subject,
    generate_key,
    make_csr,
)
from meshnet.registry import codec, schema

EAST = Cluster(name="east", id=1, pod_cidrs=(parse_prefix("10.1.0.0/16"),))
SIGNER = Signer.create("east")
ADDRESS = parse_address("192.168.0.2")


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@attrs.frozen
class Applicant:
    """Somebody with keys of its own."""

    keys: dict[Profile, bytes] = attrs.field(
        factory=lambda: {profile: generate_key() for profile in NODE_PROFILES}
    )

    def request(
        self, secret: bytes, *, node: str = "n2", address: Address = ADDRESS, plan: bool = False
    ) -> JoinNodeRequest:
        return JoinNodeRequest(
            secret=secret,
            node=node,
            addresses=(address,),
            requests={p: make_csr(key, "anything").decode() for p, key in self.keys.items()},
            plan=plan,
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kv() -> MemoryKV:
    return MemoryKV()


@pytest.fixture
def tokens(kv: MemoryKV, clock: Clock) -> Tokens:
    return Tokens(kv, EAST, clock)


@pytest.fixture
def admission(kv: MemoryKV, tokens: Tokens, clock: Clock) -> NodeAdmission:
    contacts = Contacts(etcd_endpoints=("192.168.0.1:2379",), signers=("192.168.0.1:4244",))
    return NodeAdmission(kv, EAST, lambda: SIGNER, tokens, lambda: contacts, clock=clock)


@pytest.fixture
async def secret(tokens: Tokens) -> bytes:
    token, _ = await tokens.create(
        TokenKind.NODE, ttl_s=3600, mesh_ca=SIGNER.mesh.certificate, signers=()
    )
    return token.secret


async def put_node(kv: MemoryKV, name: str, address: str) -> None:
    node = Node(name=name, cluster="east", cluster_id=1, addresses=(parse_address(address),))
    await kv.put(schema.node("east", name), codec.encode_node(node))


def certificate(reply: JoinNodeReply, profile: Profile) -> Certificate:
    return Certificate.parse(reply.certificates[profile].encode())


async def test_node_gets_certificates_with_the_names_that_the_signer_chose(
    admission: NodeAdmission, secret: bytes
) -> None:
    reply = await admission.join(Applicant().request(secret))

    for profile in NODE_PROFILES:
        expected = Subject.of(profile, "east", "n2", (ADDRESS,))
        assert certificate(reply, profile).subject == expected
    assert reply.cluster == EAST
    assert reply.etcd_endpoints == ("192.168.0.1:2379",)
    assert reply.signers == ("192.168.0.1:4244",)
    assert reply.authorities[Authority.NODE] == SIGNER.node.certificate.pem.decode()


async def test_plain_token_never_yields_the_ca_keys(
    admission: NodeAdmission, secret: bytes
) -> None:
    assert (await admission.join(Applicant().request(secret))).authority_keys == {}


async def test_signer_token_yields_the_ca_keys_and_no_repr_shows_them(
    admission: NodeAdmission, tokens: Tokens
) -> None:
    token, _ = await tokens.create(
        TokenKind.NODE, ttl_s=60, mesh_ca=SIGNER.mesh.certificate, signers=(), signer=True
    )

    reply = await admission.join(Applicant().request(token.secret))

    assert reply.authority_keys[Authority.MESH] == SIGNER.mesh.key_pem().decode()
    assert "PRIVATE" not in repr(reply)


async def test_same_applicant_may_try_again_and_another_may_not(
    admission: NodeAdmission, kv: MemoryKV, secret: bytes
) -> None:
    applicant = Applicant()
    await admission.join(applicant.request(secret))
    await put_node(kv, "n2", str(ADDRESS))

    again = await admission.join(applicant.request(secret))

    assert certificate(again, Profile.NODE).node == "n2"
    with pytest.raises(TokenRefused, match=r"has been used already: ask for one of your own$"):
        await admission.join(Applicant().request(secret, node="n3"))


async def test_plan_checks_and_uses_nothing_up(
    admission: NodeAdmission, tokens: Tokens, secret: bytes
) -> None:
    reply = await admission.join(Applicant().request(secret, plan=True))

    assert reply.certificates == {}
    assert (await tokens.find(secret, TokenKind.NODE)).record.used_by is None


async def refused(
    admission: NodeAdmission, tokens: Tokens, request: JoinNodeRequest, expected: type[Exception]
) -> str:
    with pytest.raises(expected) as refusal:
        await admission.join(request)
    held = await tokens.find(request.secret, TokenKind.NODE)
    assert held.record.used_by is None, "a refusal costs no token"
    return str(refusal.value)


async def test_name_of_a_live_node_is_refused(
    admission: NodeAdmission, tokens: Tokens, kv: MemoryKV, secret: bytes
) -> None:
    await put_node(kv, "n2", "192.168.0.9")

    assert await refused(admission, tokens, Applicant().request(secret), Refused) == (
        "node 'n2' is live in cluster 'east': choose another name with --node, or run "
        "`meshnet node delete n2` first"
    )


async def test_address_of_another_node_is_refused(
    admission: NodeAdmission, tokens: Tokens, kv: MemoryKV, secret: bytes
) -> None:
    await put_node(kv, "n1", str(ADDRESS))

    message = await refused(admission, tokens, Applicant().request(secret), Refused)

    assert message == "address 192.168.0.2 is that of node 'n1'"


async def test_poisoned_node_key_does_not_stop_others_from_joining(
    admission: NodeAdmission, kv: MemoryKV, secret: bytes
) -> None:
    await kv.put(schema.node("east", "bad"), b"hello")

    assert (await admission.join(Applicant().request(secret))).certificates


async def test_faulty_requests_are_refused(
    admission: NodeAdmission, tokens: Tokens, secret: bytes
) -> None:
    good = Applicant().request(secret)
    bad_name = attrs.evolve(good, node="N_2")
    homeless = attrs.evolve(good, addresses=())
    greedy = attrs.evolve(good, requests={**good.requests, Profile.ETCD: "x"})
    garbled = attrs.evolve(good, requests={**good.requests, Profile.MIRROR: "hello"})

    assert "node name 'N_2' is invalid" in await refused(admission, tokens, bad_name, InvalidName)
    assert await refused(admission, tokens, homeless, Refused) == (
        "node 'n2' names no underlay address"
    )
    assert await refused(admission, tokens, greedy, Refused) == (
        "signing requests are wanted for gateway, mirror, node, and for nothing else"
    )
    assert (await refused(admission, tokens, garbled, Refused)).startswith(
        "not a PEM signing request"
    )


def renewal(applicant: Applicant, reply: JoinNodeReply, profile: Profile) -> RenewRequest:
    csr = make_csr(applicant.keys[profile], "anything")
    return RenewRequest(certificate=reply.certificates[profile], request=csr.decode())


@pytest.mark.parametrize("profile", sorted(NODE_PROFILES))
async def test_renewed_certificate_says_the_same_for_longer(
    admission: NodeAdmission, clock: Clock, secret: bytes, profile: Profile
) -> None:
    applicant = Applicant()
    reply = await admission.join(applicant.request(secret))
    clock.now += timedelta(days=13)  # expired six days ago

    renewed = await admission.renew(renewal(applicant, reply, profile))

    old, new = certificate(reply, profile), Certificate.parse(renewed.certificate.encode())
    assert new.subject == old.subject
    assert new.key_fingerprint == old.key_fingerprint
    assert new.not_after - clock.now > timedelta(days=6, hours=23)


async def test_certificate_of_another_cluster_is_not_renewed(admission: NodeAdmission) -> None:
    west, key = Signer.create("west"), generate_key()
    csr = make_csr(key, "n1")
    foreign = west.sign(csr, Subject(profile=Profile.NODE, cluster="east", node="n1"))

    with pytest.raises(PermissionRefused) as refusal:
        await admission.renew(RenewRequest(certificate=foreign.pem.decode(), request=csr.decode()))

    assert str(refusal.value) == "certificate of 'n1' is not signed by CN=meshnet east node CA"


async def test_revoked_node_renews_nothing_until_it_has_joined_again(
    admission: NodeAdmission, kv: MemoryKV, tokens: Tokens, clock: Clock, secret: bytes
) -> None:
    stolen = Applicant()
    reply = await admission.join(stolen.request(secret))
    clock.now += timedelta(days=1)
    await revoke(kv, "n2", now=clock.now)

    for profile in NODE_PROFILES:
        with pytest.raises(PermissionRefused) as refusal:
            await admission.renew(renewal(stolen, reply, profile))
        assert str(refusal.value) == "node 'n2' was revoked: join again with a new token"

    clock.now += timedelta(minutes=1)
    token, _ = await tokens.create(
        TokenKind.NODE, ttl_s=60, mesh_ca=SIGNER.mesh.certificate, signers=()
    )
    honest = Applicant()
    fresh = await admission.join(honest.request(token.secret))
    await admission.renew(renewal(honest, fresh, Profile.NODE))
    with pytest.raises(PermissionRefused, match=r"was revoked"):
        await admission.renew(renewal(stolen, reply, Profile.NODE))
