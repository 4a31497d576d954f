"""Certificates of seconds: renewed in time nobody notices; too late, and all comes back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meshnet.errors import MeshnetError
from meshnet.pki.certificate import Profile
from tests.support.members import Member, Members, eventually, members

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(120)]

LIFETIME = timedelta(seconds=9)


def left(member: Member, profile: Profile) -> timedelta:
    certificate = member.pki.certificate(profile)
    assert certificate is not None
    return certificate.not_after - datetime.now(UTC)


async def can_connect(east: Members, member: Member) -> bool:
    """By a handshake of its own: a connection that stands is not asked for its certificate."""
    client = east.client(member.pki)
    try:
        async with asyncio.timeout(3):
            return await client.revision() > 0
    except (MeshnetError, TimeoutError):
        return False
    finally:
        await client.close()


async def test_certificates_of_seconds_carry_a_cluster_for_three_of_their_lives(
    tmp_path: Path,
) -> None:
    async with members(tmp_path, lifetime=LIFETIME) as east:
        second = await east.join("east-2")
        first = {profile: second.pki.certificate(profile) for profile in (Profile.NODE,)}
        until = asyncio.get_running_loop().time() + 3 * LIFETIME.total_seconds()
        written = 0
        while asyncio.get_running_loop().time() < until:
            await second.kv.put("meshnet/v1/test", str(written).encode())
            written += 1
            await asyncio.sleep(0.1)

        assert written > 100
        now = second.pki.certificate(Profile.NODE)
        before = first[Profile.NODE]
        assert now is not None and before is not None and now.serial != before.serial
        assert (second.session.losses, second.keeper.problems()) == (0, [])
        for member in east.nodes.values():
            assert await can_connect(east, member)
            for expiry in member.pki.expiries():
                assert expiry.not_after > datetime.now(UTC), expiry.profile


async def test_shorter_lifetime_takes_effect_at_once_on_every_node(tmp_path: Path) -> None:
    async with members(tmp_path) as east:
        second = await east.join("east-2")
        assert left(second, Profile.MIRROR) > timedelta(days=6)

        east.settings.lifetime = timedelta(hours=1)
        for member in east.nodes.values():
            member.keeper.wake()

        for member in east.nodes.values():
            await eventually(lambda member=member: left(member, Profile.NODE) < timedelta(hours=2))


async def test_node_whose_certificates_ran_out_comes_back_when_a_signer_does(
    tmp_path: Path,
) -> None:
    async with members(tmp_path, lifetime=LIFETIME) as east:
        second = await east.join("east-2")
        await eventually(lambda: second.session.held)
        (server,) = east.servers
        await server.stop()
        await eventually(lambda: left(second, Profile.NODE) < timedelta())

        assert not await can_connect(east, second)
        problems = {problem.id: problem for problem in second.keeper.problems()}
        assert {"certificate-expired", "renewal-failed"} <= problems.keys()
        assert all(not task.done() for task in second.tasks), "nothing has ended for it"

        port = east.signers["east-1"].rpartition(":")[2]
        await east.serve_enrolment("east-1", east.nodes["east-1"].kv, east.founder, port=int(port))

        await eventually(lambda: left(second, Profile.NODE) > timedelta())
        assert await can_connect(east, second)
        await eventually(lambda: second.keeper.problems() == [])
        await eventually(lambda: second.session.held)
