"""CA keys leave a signer for another signer alone, and the last signer does not leave lightly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshnet import config
from meshnet.bootstrap.leave import leave_cluster
from meshnet.config import EtcdSettings, Paths, Settings
from meshnet.enrolment.client import EnrolmentClient
from meshnet.enrolment.keys import fetch_keys
from meshnet.enrolment.messages import KeysRequest
from meshnet.enrolment.nodes import revoke
from meshnet.errors import PermissionRefused, Refused
from meshnet.pki.ca import holders
from meshnet.pki.certificate import Authority, Profile, make_csr
from meshnet.pki.store import PkiStore
from tests.support.members import Members, eventually, members

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[Members]:
    async with members(tmp_path) as made:
        yield made


def client(east: Members) -> EnrolmentClient:
    authorities = east.founder.authorities(Authority.MESH)
    return EnrolmentClient("east", tuple(east.signers.values()), authorities)


async def ask(east: Members, pki: PkiStore, profile: Profile, challenge: str) -> None:
    certificate, key = pki.pair(profile)
    await client(east).fetch_keys(
        KeysRequest(certificate=certificate.decode(), request=make_csr(key, challenge).decode())
    )


async def test_signer_that_lacks_a_key_is_given_it(east: Members) -> None:
    other = await east.join("east-2", signer=True)
    other.pki.ca_key_path(Authority.NODE).unlink()

    await fetch_keys(other.pki, "east", (east.signers["east-1"],))

    for which in Authority:
        assert holders(other.pki.authorities(which), other.pki.ca_keys(which))


async def test_node_that_is_no_signer_gets_no_keys(east: Members) -> None:
    node = await east.join("east-2")
    challenge = (await client(east).challenge()).challenge

    with pytest.raises(PermissionRefused, match=r"^certificate of 'east-2' is not that of a sig"):
        await ask(east, node.pki, Profile.GATEWAY, challenge)
    with pytest.raises(PermissionRefused, match=r"is not signed by"):
        await ask(east, node.pki, Profile.NODE, challenge)


async def test_answer_is_good_for_one_challenge_once(east: Members) -> None:
    other = await east.join("east-2", signer=True)
    challenge = (await client(east).challenge()).challenge

    await ask(east, other.pki, Profile.ENROLMENT, challenge)
    with pytest.raises(PermissionRefused, match=r"^signer 'east-2' answers no challenge of ours$"):
        await ask(east, other.pki, Profile.ENROLMENT, challenge)
    with pytest.raises(PermissionRefused, match=r"^signer 'east-2' answers no challenge of ours$"):
        await ask(east, other.pki, Profile.ENROLMENT, "made up")


async def test_signers_public_certificate_without_its_key_gets_nothing(east: Members) -> None:
    other = await east.join("east-2", signer=True)
    thief = await east.join("east-3")
    stolen = other.pki.pair(Profile.ENROLMENT)[0].decode()
    challenge = (await client(east).challenge()).challenge
    csr = make_csr(thief.pki.pair(Profile.NODE)[1], challenge).decode()

    with pytest.raises(PermissionRefused, match=r"^signer 'east-2' does not hold its certificate"):
        await client(east).fetch_keys(KeysRequest(certificate=stolen, request=csr))


async def test_revoked_signer_gets_no_new_keys(east: Members) -> None:
    other = await east.join("east-2", signer=True)
    await revoke(east.nodes["east-1"].kv, "east-2")
    challenge = (await client(east).challenge()).challenge

    with pytest.raises(PermissionRefused, match=r"^node 'east-2' was revoked"):
        await ask(east, other.pki, Profile.ENROLMENT, challenge)


async def refusal(east: Members, directory: Path, node: str, *, managed: bool) -> str:
    """Of `cluster leave`, which has changed nothing then."""
    pki = east.founder
    etcd = EtcdSettings(
        endpoints=(east.etcd.endpoint,),
        ca=str(pki.ca_path(Authority.NODE)),
        cert=str(pki.certificate_path(Profile.NODE)),
        key=str(pki.key_path(Profile.NODE)),
        managed=managed,
    )
    paths = Paths(config=directory / "meshnet.toml", state=directory / "state", run=directory)
    config.save(
        paths,
        Settings(cluster="east", cluster_id=1, node=node, underlay="lo", etcd=etcd, signer=True),
    )
    with pytest.raises(Refused) as error:
        await leave_cluster(
            paths, force=False, say=lambda _: None, drain=lambda: pytest.fail("it began to leave")
        )
    assert paths.config.exists()
    return str(error.value)


async def test_last_signer_and_etcds_host_do_not_leave_and_say_who_would_lose_what(
    east: Members, tmp_path: Path
) -> None:
    await east.join("east-2")
    first = east.nodes["east-1"].authorities
    await eventually(lambda: first.reports.keys() == {"east-1", "east-2"})

    assert await refusal(east, tmp_path / "a", "east-1", managed=True) == (
        "node east-1 runs the etcd of cluster east, which east-2 would lose: run `meshnet cluster "
        "leave` there first, or give --force here"
    )
    assert await refusal(east, tmp_path / "b", "east-1", managed=False) == (
        "node east-1 is the last signer of cluster east: without its CA keys nobody joins and the "
        "certificates of east-2 run out: join one more host by `meshnet cluster token --signer` "
        "first, or give --force here"
    )


async def test_fewer_than_two_signers_is_a_problem_until_there_are_two(east: Members) -> None:
    first = east.nodes["east-1"].authorities
    await eventually(lambda: first.signers != ())
    assert "too-few-signers" in [problem.id for problem in first.problems()]

    await east.join("east-2", signer=True)

    await eventually(lambda: first.problems() == [])
