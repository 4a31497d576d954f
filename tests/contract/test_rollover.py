"""CAs change under the feet of a running cluster: real etcd, real TLS, nobody shut out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from meshnet.errors import Conflict, MeshnetError, Refused
from meshnet.mesh.authorities import RemoteAuthorities
from meshnet.model.addressing import parse_prefix
from meshnet.model.authority import Phase
from meshnet.model.remote import Remote, RemoteState
from meshnet.pki.ca import CertificateAuthority, Signer, holders
from meshnet.pki.certificate import Authority, Profile
from meshnet.pki.store import PkiStore
from meshnet.registry import codec, schema, trust_codec
from tests.support.members import Members, eventually, members

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(120)]


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[Members]:
    async with members(tmp_path) as made:
        yield made


def phase(east: Members) -> Phase | None:
    state = east.nodes["east-1"].authorities.state
    return state.phase if state else None


async def begin(east: Members) -> None:
    first = east.nodes["east-1"].authorities
    await eventually(lambda: phase(east) is Phase.STABLE and first.reports.keys() >= {*east.nodes})
    following = await first.rotate()
    await eventually(lambda: (now := first.state) is not None and now.epoch >= following.epoch)


async def finished(east: Members) -> None:
    """Stable again, and everybody knows."""
    await eventually(
        lambda: (
            phase(east) is Phase.STABLE
            and (state := east.nodes["east-1"].authorities.state) is not None
            and all(
                report.epoch == state.epoch
                for member in east.nodes.values()
                for report in member.authorities.reports.values()
            )
        )
    )


async def test_new_cas_take_over_while_every_node_goes_on_reading_and_writing(
    east: Members,
) -> None:
    second = await east.join("east-2")
    old = {which: second.pki.authorities(which)[0] for which in Authority}
    stale = PkiStore(east.directory / "stale")
    for which in Authority:
        stale.save_ca(which, second.pki.ca(which))
    stale.save_certificate(Profile.NODE, second.pki.pair(Profile.NODE)[0])
    (stale.key_path(Profile.NODE)).write_bytes(second.pki.pair(Profile.NODE)[1])
    written, failed = 0, 0

    async def write_all_the_time() -> None:
        nonlocal written, failed
        while True:
            try:
                await second.kv.put("meshnet/v1/test", str(written).encode())
                written += 1
            except MeshnetError:
                failed += 1
            await asyncio.sleep(0.02)

    writing = asyncio.ensure_future(write_all_the_time())
    await begin(east)
    await finished(east)
    before = written
    await eventually(lambda: written > before + 20)
    writing.cancel()

    for member in east.nodes.values():
        for which in Authority:
            (only,) = member.pki.authorities(which)
            assert only.fingerprint != old[which].fingerprint
        assert member.pki.outdated() == ()
        assert (await member.kv.get("meshnet/v1/test")) is not None
    assert second.session.held, "the node's key never went"
    assert len(east.founder.ca_keys(Authority.NODE)) == 1, "the old key is gone"
    with pytest.raises(MeshnetError):
        rejected = east.client(stale)
        try:
            await rejected.revision()
        finally:
            await rejected.close()
    assert failed < 200, "etcd was away for two restarts and no longer"


async def test_node_joins_in_the_middle_of_a_change(east: Members) -> None:
    east.remotes = frozenset({"nobody-asks"})  # so that it stays in its first phase
    await begin(east)
    await eventually(lambda: phase(east) is Phase.ANNOUNCE)

    second = await east.join("east-2")

    assert len(second.pki.authorities(Authority.NODE)) == 2
    waits = east.nodes["east-1"].authorities.waiting_for
    reason = "cluster nobody-asks: it has not asked for the new CAs yet"
    await eventually(lambda: waits() == (reason,))
    east.remotes = frozenset()
    await finished(east)
    assert second.pki.outdated() == ()


async def test_second_signer_receives_the_new_keys_and_signs_with_them(east: Members) -> None:
    other = await east.join("east-2", signer=True)
    await begin(east)
    await finished(east)

    for which in Authority:
        (authority,) = other.pki.authorities(which)
        assert len(holders([authority], other.pki.ca_keys(which))) == 1
    Signer.load(other.pki)
    assert other.pki.issuer(Profile.ENROLMENT).fingerprint == (
        east.founder.authorities(Authority.MESH)[0].fingerprint
    )


async def test_rotation_is_for_signers_and_one_at_a_time(east: Members) -> None:
    second = await east.join("east-2")
    east.remotes = frozenset({"nobody-asks"})
    await begin(east)

    with pytest.raises(Conflict, match=r"^the CAs of cluster 'east' are changing already"):
        await eventually(lambda: phase(east) is Phase.ANNOUNCE)
        await east.nodes["east-1"].authorities.rotate()
    await eventually(lambda: second.authorities.signers)
    with pytest.raises(Refused, match=r"^this node holds no CA keys: run `meshnet cluster ca rot"):
        await second.authorities.rotate()


async def test_ca_that_nobody_endorsed_is_believed_by_nobody(east: Members) -> None:
    """Whoever has a node's certificate may write etcd. That must not make it a CA."""
    second = await east.join("east-2")
    first = east.nodes["east-1"].authorities
    await eventually(lambda: first.state is not None and first.reports.keys() >= {*east.nodes})
    state = first.state
    assert state is not None
    evil = CertificateAuthority.create(Authority.NODE, "east").certificate
    forged = attrs.evolve(
        state,
        epoch=state.epoch + 1,
        phase=Phase.SIGN,
        node_cas=(evil.pem.decode(), *state.node_cas),
        endorsements=(evil.pem.decode(),),
        since=datetime.now(UTC),
    )

    await second.kv.put(schema.TRUST, trust_codec.encode_trust(forged))

    await eventually(lambda: second.authorities.error is not None)
    assert "is not endorsed by a CA that this node trusts" in (second.authorities.error or "")
    assert "trust-not-followed" in [problem.id for problem in second.authorities.problems()]
    for member in east.nodes.values():
        assert evil.fingerprint not in [
            ca.fingerprint for ca in member.pki.authorities(Authority.NODE)
        ]


async def test_remote_learns_of_the_new_mesh_ca_before_it_signs(east: Members) -> None:
    """north pinned east's CA at its join; here is north's leader, over north's own store."""
    first = east.nodes["east-1"]
    old = east.founder.authorities(Authority.MESH)[0]
    pinned = Remote(
        name="east",
        id=1,
        mesh_ca=old.pem.decode(),
        pod_cidrs=(parse_prefix("10.1.0.0/16"),),
        gateways=("127.0.0.1:4243",),
        state=RemoteState.COMMITTED,
        signers=tuple(east.signers.values()),
    )
    north = Remote(
        name="north", id=3, mesh_ca=Signer.create("north").mesh.certificate.pem.decode(),
        pod_cidrs=(parse_prefix("10.3.0.0/16"),), gateways=("127.0.0.1:1",),
        state=RemoteState.COMMITTED,
    )  # fmt: skip
    await first.kv.put(schema.remote("north"), codec.encode_remote(north))
    from meshnet.kvstore.memory import MemoryKV

    theirs = MemoryKV()
    await theirs.put(schema.remote("east"), codec.encode_remote(pinned))
    asking = RemoteAuthorities(theirs, "north", lambda: True)
    east.remotes = frozenset({"north"})

    async def held() -> Remote:
        pair = await theirs.get(schema.remote("east"))
        assert pair is not None
        return codec.decode_remote(pair.key, pair.value)

    await begin(east)
    await eventually(lambda: first.authorities.waiting_for() != ())
    await eventually(lambda: len(east.founder.authorities(Authority.MESH)) == 2)
    assert phase(east) is Phase.ANNOUNCE, "nothing goes on before north knows"

    await asking.ask_all()
    assert len((await held()).trusted) == 2
    await finished(east)
    await asking.ask_all()

    (new,) = east.founder.authorities(Authority.MESH)
    after = await held()
    assert after.trusted == (new.pem.decode(),)
    assert json.loads(codec.encode_remote(after))["next_mesh_ca"] is None
