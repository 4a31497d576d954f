"""Certificates stay young, over the real enrolment port; who was revoked or forgotten does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meshnet.enrolment.joining import enrol_node
from meshnet.enrolment.nodes import revoke
from meshnet.enrolment.renewal import renew_due
from meshnet.errors import PermissionRefused, Refused
from meshnet.model.addressing import parse_address
from meshnet.model.token import TokenKind
from meshnet.pki.certificate import Profile, Subject
from meshnet.pki.store import PkiStore
from meshnet.pki.token import JoinToken
from tests.support.enrolment import (
    ClusterWithEtcd,
    RunningCluster,
    client_of,
    cluster_with_etcd,
    running,
)

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


def age(east: RunningCluster, pki: PkiStore, node: str, days: dict[Profile, int]) -> None:
    """Make certificates look as if issued so many days ago."""
    for profile, count in days.items():
        subject = Subject.of(profile, "east", node, (SECOND,))
        issued = datetime.now(UTC) - timedelta(days=count)
        east.trusted.signer.enrol(pki, subject, now=issued)


def left(pki: PkiStore, profile: Profile) -> timedelta:
    certificate = pki.certificate(profile)
    assert certificate is not None
    return certificate.not_after - datetime.now(UTC)


async def test_due_certificates_are_renewed_even_those_that_have_expired(
    east: RunningCluster, pki: PkiStore
) -> None:
    await join(await east.token(TokenKind.NODE), pki)
    pki.save_signers((east.signer,))
    age(east, pki, "east-2", {Profile.NODE: 5, Profile.MIRROR: 10})
    key = pki.ensure_key(Profile.NODE)

    renewed = await renew_due(pki, "east")

    assert renewed == (Profile.MIRROR, Profile.NODE), "the gateway's is young, soonest first"
    for profile in renewed:
        assert timedelta(days=6) < left(pki, profile) <= timedelta(days=7)
    assert pki.ensure_key(Profile.NODE) == key
    assert pki.signers() == ("127.0.0.1:4244",), "as the signer told"
    node = client_of(pki, Profile.NODE, east.etcd.endpoint)
    assert await node.revision() > 0
    await node.close()


async def test_node_that_was_away_too_long_must_join_again(
    east: RunningCluster, pki: PkiStore
) -> None:
    await join(await east.token(TokenKind.NODE), pki)
    pki.save_signers((east.signer,))
    age(east, pki, "east-2", {Profile.NODE: 15})

    with pytest.raises(PermissionRefused, match=r"too long ago to renew: join again$"):
        await renew_due(pki, "east")


async def test_revoked_node_cannot_renew(east: RunningCluster, pki: PkiStore) -> None:
    await join(await east.token(TokenKind.NODE), pki)
    pki.save_signers((east.signer,))
    age(east, pki, "east-2", {Profile.NODE: 5})
    await revoke(east.kv, "east-2")

    with pytest.raises(PermissionRefused, match=r"^node 'east-2' was revoked: join again with a"):
        await renew_due(pki, "east")


async def test_signer_renews_its_own_without_asking_anybody(east: RunningCluster) -> None:
    age(east, east.trusted.pki, "east-1", {Profile.NODE: 6, Profile.ETCD: 6, Profile.ENROLMENT: 20})

    renewed = await renew_due(east.trusted.pki, "east")

    assert set(renewed) == {Profile.NODE, Profile.ETCD, Profile.ENROLMENT}
    assert left(east.trusted.pki, Profile.ENROLMENT) > timedelta(days=6)
    age(east, east.trusted.pki, "east-1", {Profile.ETCD: 0})


async def test_renewed_enrolment_certificate_is_in_use_without_restart(
    east: RunningCluster, pki: PkiStore
) -> None:
    age(east, east.trusted.pki, "east-1", {Profile.ENROLMENT: 20})
    with pytest.raises(Refused, match=r"is no signer of cluster 'east'"):
        await join(await east.token(TokenKind.NODE), pki)

    await renew_due(east.trusted.pki, "east")

    await join(await east.token(TokenKind.NODE), pki)
