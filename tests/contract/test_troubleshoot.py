"""The ladder of `mesh troubleshoot`: each rung broken alone, over real TLS and real etcds.

west climbs to east: gateway and etcd of east, etcd of west for what was copied
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from meshnet.kvstore.channel import ClientTls
from meshnet.mesh.heartbeat import Heartbeat
from meshnet.mesh.troubleshoot import Ladder, Rung
from meshnet.model.remote import MirrorStatus, RefusedKey, Remote, RemoteKind
from meshnet.pki.certificate import Authority, Profile
from meshnet.registry import codec, schema
from tests.support.enrolment import ClusterWithEtcd, RunningCluster, cluster_with_etcd, running
from tests.support.etcd import free_port
from tests.support.mesh import lead

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]

RUNGS = ["DNS", "TCP", "TLS", "certificates", "etcd protocol", "identity", "clock", "lag"]
READY = MirrorStatus(name="east", id=1, connected=True, ready=True, nodes=1)


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


@attrs.define
class Climb:
    """What west has to climb with; a test spoils one thing."""

    east: RunningCluster
    west: RunningCluster
    remote: Remote
    endpoints: tuple[str, ...]
    status: MirrorStatus | None = READY
    now: Callable[[], float] = time.time
    ca: bytes | None = None

    async def rungs(self) -> dict[str, Rung]:
        pki = self.west.trusted.pki
        tls = ClientTls(
            ca=self.ca or self.remote.mesh_ca.encode(),
            cert=pki.certificate_path(Profile.MIRROR),
            key=pki.key_path(Profile.MIRROR),
        )
        ladder = Ladder(self.remote, self.endpoints, tls, self.west.kv, self.status, now=self.now)
        found = await ladder.climb()
        assert [rung.rung for rung in found] == RUNGS
        return {rung.rung: rung for rung in found}

    async def broken(self, rung: str) -> Rung:
        """That rung, once it is seen that it alone is: those below hold, those above were not
        tried."""
        rungs = await self.rungs()
        at = RUNGS.index(rung)
        states = [rungs[name].ok for name in RUNGS]
        assert states == [True] * at + [False] + [None] * (len(RUNGS) - at - 1), rungs
        found = rungs[rung]
        assert found.tried and found.evidence and found.cause and found.fix
        return found


@pytest.fixture
async def climb(bases: tuple[ClusterWithEtcd, ClusterWithEtcd]) -> AsyncIterator[Climb]:
    """West after a join, with its mirror's copy: every rung holds."""
    for base in bases:
        base.trusted.enrol(Profile.MIRROR)
    async with running(bases[0]) as east, running(bases[1]) as west:
        await east.kv.put(schema.remote("west"), _encoded(west))
        await Heartbeat(east.kv, east.trusted.cluster).beat(await lead(east.kv))
        node = await east.kv.get(schema.node("east", "east-1"))
        assert node is not None
        await west.kv.put(f"{schema.cache_nodes('east')}east-1", node.value)
        remote = attrs.evolve(east.trusted.remote(), gateways=(east.gateway,))
        made = Climb(east, west, remote, (east.gateway,))
        await _admitted(made)
        yield made


def _encoded(cluster: RunningCluster) -> bytes:
    return codec.encode_remote(cluster.trusted.remote())


async def _admitted(climb: Climb) -> None:
    """Until east's gateway has heard of west."""
    deadline = time.monotonic() + 10
    while (await climb.rungs())["etcd protocol"].ok is not True:
        assert time.monotonic() < deadline


async def test_a_remote_that_is_well_has_every_rung(climb: Climb) -> None:
    rungs = await climb.rungs()
    assert all(rung.ok for rung in rungs.values()), rungs
    assert "TLSv1.3" in rungs["TLS"].evidence
    assert "good for 6 days, theirs good for" in rungs["certificates"].evidence
    assert rungs["lag"].evidence.startswith("1 nodes are as there")


async def test_a_name_that_does_not_resolve(climb: Climb) -> None:
    climb.endpoints = ("no-such-host.invalid:4243",)
    assert "no-such-host.invalid" in (await climb.broken("DNS")).evidence


async def test_a_port_where_nothing_listens(climb: Climb) -> None:
    climb.endpoints = (f"127.0.0.1:{free_port()}",)
    broken = await climb.broken("TCP")
    assert "onnect" in broken.evidence and "/tcp" in broken.fix


async def test_one_gateway_of_two_is_enough_and_the_other_is_named(climb: Climb) -> None:
    away = f"127.0.0.1:{free_port()}"
    climb.endpoints = (away, climb.east.gateway)
    rungs = await climb.rungs()
    assert all(rung.ok for rung in rungs.values())
    assert f"but not {away}" in rungs["TCP"].evidence


async def test_a_certificate_of_another_ca(climb: Climb) -> None:
    climb.ca = climb.west.trusted.pki.ca(Authority.MESH)
    broken = await climb.broken("TLS")
    assert "certificate" in broken.evidence and "mesh leave east" in broken.fix


async def test_our_own_certificate_that_ran_out(climb: Climb) -> None:
    climb.west.trusted.enrol(Profile.MIRROR, lifetime=timedelta(seconds=-1))
    broken = await climb.broken("certificates")
    assert broken.evidence.startswith("ours is valid from")


async def test_a_gateway_that_does_not_know_us(climb: Climb) -> None:
    await climb.east.kv.delete(schema.remote("west"))
    deadline = time.monotonic() + 10
    while (await climb.rungs())["etcd protocol"].ok:
        assert time.monotonic() < deadline
    broken = await climb.broken("etcd protocol")
    assert "mesh leave east" in broken.fix


async def test_another_cluster_of_the_same_name(climb: Climb) -> None:
    climb.remote = attrs.evolve(climb.remote, id=9)
    broken = await climb.broken("identity")
    assert broken.evidence == "it says id 1, but joined with 9"


async def test_a_canary_that_is_missing(climb: Climb) -> None:
    await climb.east.kv.delete(schema.synced("east", schema.CANARIED[1]))
    assert "cilium/state/ip/v1 is missing" in (await climb.broken("identity")).evidence


async def test_keys_that_are_refused(climb: Climb) -> None:
    refusal = RefusedKey("cilium/state/ip/v1/default/10.9.9.9", "outside its PodCIDRs")
    climb.status = attrs.evolve(READY, refused=1, refusals=(refusal,))
    broken = await climb.broken("identity")
    assert "1 keys refused" in broken.evidence and "10.9.9.9" in broken.evidence


@pytest.mark.parametrize(("ahead_s", "said"), [(3600, "ahead of ours"), (-3600, "s old by our")])
async def test_clocks_that_differ(ahead_s: int, said: str, climb: Climb) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=ahead_s)
    await climb.east.kv.put(schema.HEARTBEAT, moment.isoformat().encode())
    broken = await climb.broken("clock")
    assert said in broken.evidence and "NTP" in broken.fix


async def test_a_mirror_that_is_behind(climb: Climb) -> None:
    await climb.west.kv.put(f"{schema.cache_nodes('east')}east-1", b"{}")
    broken = await climb.broken("lag")
    assert "1 of 1 nodes are not as there" in broken.evidence


@pytest.mark.parametrize(
    "status", [None, attrs.evolve(READY, ready=False, error="no heartbeat for 120 s")]
)
async def test_a_mirror_that_does_not_run(status: MirrorStatus | None, climb: Climb) -> None:
    climb.status = status
    assert "leader" in (await climb.broken("lag")).fix


async def test_a_cilium_cluster_is_told_how_it_is_mended(climb: Climb) -> None:
    climb.remote = attrs.evolve(climb.remote, kind=RemoteKind.CILIUM)
    climb.ca = climb.west.trusted.pki.ca(Authority.MESH)
    assert "mesh add east" in (await climb.broken("TLS")).fix
