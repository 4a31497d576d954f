"""A node that was stolen: refused by etcd and by every gateway, cut off, and forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshnet.agent.expulsion import Expulsion
from meshnet.enrolment.renewal import renew_due
from meshnet.errors import MeshnetError, PermissionRefused
from meshnet.gateway.callers import Callers
from meshnet.kvstore.memory import MemoryKV
from meshnet.mesh.authorities import RemoteAuthorities
from meshnet.model.addressing import parse_prefix
from meshnet.model.remote import Remote, RemoteState
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import Authority, Profile
from meshnet.registry import codec, schema
from tests.support.members import Member, Members, eventually, members

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(120)]


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[Members]:
    async with members(tmp_path) as made:
        await made.join("east-2")
        await made.join("east-3")
        first = made.nodes["east-1"].authorities
        await eventually(lambda: first.reports.keys() == {*made.nodes})
        yield made


async def expel(east: Members, name: str) -> None:
    acting = east.nodes["east-3"]
    await Expulsion(acting.kv, "east", acting.authorities).expel(name)


async def reads(member: Member) -> bool:
    try:
        async with asyncio.timeout(3):
            return await member.kv.revision() > 0
    except (MeshnetError, TimeoutError):
        return False


async def test_stolen_node_is_refused_by_etcd_on_new_and_on_standing_connections(
    east: Members,
) -> None:
    stolen = east.nodes["east-2"]
    seen: list[object] = []

    async def follow_all() -> None:
        after = await stolen.kv.revision()
        async for batch in stolen.kv.watch("meshnet/v1/secret", after=after):
            seen.append(batch)

    watching = asyncio.ensure_future(follow_all())
    await asyncio.sleep(0.3)

    await expel(east, "east-2")
    await east.nodes["east-3"].kv.put("meshnet/v1/secret", b"after")

    assert not await reads(stolen), "its certificate is refused"
    fresh = east.client(stolen.pki)
    with pytest.raises(MeshnetError):
        await fresh.revision()
    await fresh.close()
    assert await reads(east.nodes["east-3"]) and await reads(east.nodes["east-1"])
    await asyncio.sleep(0.5)
    assert seen == [], "the stream it had open was cut"
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError, MeshnetError):
        await watching


async def test_nothing_of_it_is_left_and_it_cannot_come_back(east: Members) -> None:
    await expel(east, "east-2")

    kv = east.nodes["east-1"].kv
    await asyncio.sleep(1.5)  # its session tries once a second to put its keys again
    assert await kv.get(schema.node("east", "east-2")) is None
    assert await kv.get(schema.trust_node("east-2")) is None
    pki = east.nodes["east-2"].pki
    with pytest.raises(PermissionRefused, match=r"^node 'east-2' was revoked: join again with a"):
        from datetime import UTC, datetime, timedelta

        await renew_due(pki, "east", now=datetime.now(UTC) + timedelta(days=6))


async def test_list_outlives_etcd_and_a_second_revocation_adds_to_it(east: Members) -> None:
    await expel(east, "east-2")
    first = east.nodes["east-1"].authorities.crl
    await east.join("east-4")
    await expel(east, "east-4")

    second = east.nodes["east-1"].authorities.crl
    assert first is not None and second is not None
    assert second.number > first.number
    assert set(first.serials) < set(second.serials)
    await east.etcd.stop()
    await eventually(lambda: reads(east.nodes["east-3"]))
    assert not await reads(east.nodes["east-2"])
    assert not await reads(east.nodes["east-4"])


async def test_gateways_of_other_clusters_refuse_its_mirror_certificate(east: Members) -> None:
    """north's leader asks east's signers; north's gateway refuses by what it pinned."""
    mesh_ca = east.founder.authorities(Authority.MESH)[0]
    remote = Remote(
        name="east",
        id=1,
        mesh_ca=mesh_ca.pem.decode(),
        pod_cidrs=(parse_prefix("10.1.0.0/16"),),
        gateways=("127.0.0.1:4243",),
        state=RemoteState.COMMITTED,
        signers=tuple(east.signers.values()),
    )
    theirs = MemoryKV()
    await theirs.put(schema.remote("east"), codec.encode_remote(remote))
    callers = Callers("north", lambda: (Signer.create("north").mesh.certificate,))

    async def pinned() -> list[Remote]:
        pair = await theirs.get(schema.remote("east"))
        assert pair is not None
        return [codec.decode_remote(pair.key, pair.value)]

    callers.replace(await pinned())
    stolen, honest = (east.nodes[name].pki.pair(Profile.MIRROR)[0] for name in ("east-2", "east-3"))
    assert callers.admit(stolen).cluster == "east"

    await expel(east, "east-2")
    await RemoteAuthorities(theirs, "north", lambda: True).ask_all()
    cut = callers.replace(await pinned())

    assert cut == {"east"}, "open streams end; the honest ones come back at once"
    with pytest.raises(PermissionRefused, match=r"^certificate of cluster 'east' was revoked by"):
        callers.admit(stolen)
    assert callers.admit(honest).cluster == "east"
