"""Every known way round etcd's own access rules, tried against the mesh gateway.

Each was run against etcd 3.4.23 with a read-only role and succeeded there; the advisory is
named where one exists. A remote with a valid mirror certificate tries it here, and so does a
"ghost": a holder of a certificate that some CA of the mesh signed, but no mirror's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import etcd3.etcdrpc as pb
import grpc
import pytest

from meshnet.kvstore.api import Put
from meshnet.pki.certificate import Profile
from tests.support.gateway import (
    KEY,
    SECRET,
    Clusters,
    Scene,
    clusters_with_etcd,
    refusal,
    serving,
)
from tests.support.trust import RawClient

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]

Bypass = Callable[[RawClient], Awaitable[Any]]
LEASE = 0x5EC2E7
"""A lease of the cluster's own, with SECRET on it: a remote could know its number."""
OWN = "meshnet/v1/leader/mesh"


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    with clusters_with_etcd(tmp_path_factory.mktemp("clusters")) as made:
        yield made


@pytest.fixture
async def scene(clusters: Clusters) -> AsyncIterator[Scene]:
    async with serving(clusters) as made:
        yield made


@pytest.fixture
async def held(scene: Scene) -> AsyncIterator[RawClient]:
    """The cluster's own client, and a lease of its own that holds a secret key."""
    own = RawClient(scene.clusters.etcd.endpoint, scene.clusters.east.etcd_tls())
    await own.lease.LeaseGrant(pb.LeaseGrantRequest(TTL=600, ID=LEASE))
    await scene.kv.txn((), (Put(OWN, b"east-1", LEASE),))
    yield own
    await own.lease.LeaseRevoke(pb.LeaseRevokeRequest(ID=LEASE))
    await own.channel.close()


def _nested(*operations: Any) -> Bypass:
    """A transaction hidden in a transaction: etcd checked the outer one alone."""
    inner = pb.TxnRequest(success=operations)
    return lambda c: c.kv.Txn(pb.TxnRequest(success=[pb.RequestOp(request_txn=inner)]))


async def _keep_alive(client: RawClient) -> Any:
    call = client.lease.LeaseKeepAlive(iter((pb.LeaseKeepAliveRequest(ID=LEASE),)))
    return await call.read()


async def _snapshot(client: RawClient) -> Any:
    return await client.maintenance.Snapshot(pb.SnapshotRequest()).read()


CALLS: dict[str, Bypass] = {
    "put in a nested txn (GHSA-rfx7-8w68-q57q)": _nested(
        pb.RequestOp(request_put=pb.PutRequest(key=KEY, value=b"evil"))
    ),
    "get of another prefix in a nested txn": _nested(
        pb.RequestOp(request_range=pb.RangeRequest(key=SECRET))
    ),
    "put that returns what was there (CVE-2026-44283)": lambda c: c.kv.Txn(
        pb.TxnRequest(
            success=[
                pb.RequestOp(request_put=pb.PutRequest(key=SECRET, prev_kv=True, ignore_value=True))
            ]
        )
    ),
    "put on a foreign lease": lambda c: c.kv.Put(
        pb.PutRequest(key=KEY, value=b"evil", lease=LEASE)
    ),
    "compact (GHSA-q8m4-xhhv-38mg)": lambda c: c.kv.Compact(pb.CompactionRequest(revision=2)),
    "lease grant (GHSA-q8m4-xhhv-38mg)": lambda c: c.lease.LeaseGrant(pb.LeaseGrantRequest(TTL=60)),
    "refresh of a foreign lease": _keep_alive,
    "revoke of a foreign lease": lambda c: c.lease.LeaseRevoke(pb.LeaseRevokeRequest(ID=LEASE)),
    "keys of a foreign lease (CVE-2023-32082)": lambda c: c.lease.LeaseTimeToLive(
        pb.LeaseTimeToLiveRequest(ID=LEASE, keys=True)
    ),
    "member list (GHSA-q8m4-xhhv-38mg)": lambda c: c.cluster.MemberList(pb.MemberListRequest()),
    "NOSPACE alarm that stops all writes": lambda c: c.maintenance.Alarm(
        pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, alarm=pb.NOSPACE)
    ),
    "snapshot": _snapshot,
    "auth disable": lambda c: c.auth.AuthDisable(pb.AuthDisableRequest()),
    "role that reads everything": lambda c: c.auth.RoleGrantPermission(
        pb.AuthRoleGrantPermissionRequest(name="root")
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_gets_round_etcds_roles_is_not_there(
    name: str, scene: Scene, held: RawClient
) -> None:
    before = await scene.kv.revision()
    left = (await held.lease.LeaseTimeToLive(pb.LeaseTimeToLiveRequest(ID=LEASE))).TTL

    async with scene.client(scene.clusters.west) as west:
        code, details = await refusal(CALLS[name](west))

    assert code is grpc.StatusCode.UNIMPLEMENTED, details
    assert await scene.kv.revision() == before, "nothing was written"
    after = await held.lease.LeaseTimeToLive(pb.LeaseTimeToLiveRequest(ID=LEASE, keys=True))
    assert 0 < after.TTL <= left and list(after.keys) == [OWN.encode()], "its lease runs on"
    await scene.kv.put(KEY.decode(), b"writes go on")
    with_history = pb.RangeRequest(key=KEY, revision=before)
    assert (await held.kv.Range(with_history)).count == 1, "its history is there"


async def test_a_delete_and_auth_disable_under_an_alarm_change_nothing(
    scene: Scene, held: RawClient
) -> None:
    """etcd let both through while an alarm stopped everybody else (etcd PR 22386)."""
    alarm = {"memberID": 0, "alarm": pb.NOSPACE}
    await held.maintenance.Alarm(pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, **alarm))
    try:
        async with scene.client(scene.clusters.west) as west:
            codes = [
                (await refusal(west.kv.DeleteRange(pb.DeleteRangeRequest(key=KEY))))[0],
                (await refusal(west.auth.AuthDisable(pb.AuthDisableRequest())))[0],
            ]
            assert (await west.range(KEY)).count == 1
    finally:
        await held.maintenance.Alarm(pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, **alarm))

    assert codes == [grpc.StatusCode.UNIMPLEMENTED] * 2


@pytest.mark.parametrize("first", [KEY, b"cilium/state/ip/v1/default/", b"cilium/.heartbeat"])
async def test_a_watch_from_an_allowed_key_to_the_end_shows_nothing(
    first: bytes, scene: Scene
) -> None:
    """GHSA-xg4h-6gfc-h4m8: etcd looked at the first key of a range that had no end."""
    async with scene.client(scene.clusters.west) as west:
        watch = west.watch()
        await watch.create(first, b"\0", start_revision=1)
        await watch.create(b"cilium/cluster-config/east")
        refused, allowed = await watch.answer(), await watch.answer()
        await scene.kv.put(SECRET.decode(), b"changed")
        await scene.kv.put("cilium/cluster-config/east", b"changed")
        event = await watch.answer()

    assert refused.canceled and "to the end of the store" in refused.cancel_reason
    assert not refused.events
    assert [e.kv.key for e in event.events] == [b"cilium/cluster-config/east"]
    assert event.watch_id == allowed.watch_id


async def test_a_watch_is_not_handed_what_was_there_before(scene: Scene) -> None:
    """`prev_kv` and old revisions show what a key was, never another key."""
    async with scene.client(scene.clusters.west) as west:
        watch = west.watch()
        request = pb.WatchCreateRequest(key=SECRET, prev_kv=True, start_revision=1)
        await watch.call.write(pb.WatchRequest(create_request=request))
        answer = await watch.answer()

    assert answer.created and answer.canceled and not answer.events


async def test_a_range_in_the_past_shows_no_more_than_one_of_now(scene: Scene) -> None:
    revision = await scene.kv.put(SECRET.decode(), b"s3cret")
    async with scene.client(scene.clusters.west) as west:
        request = pb.RangeRequest(key=SECRET, revision=revision, serializable=True)
        code, _ = await refusal(west.kv.Range(request))
        counting = pb.RangeRequest(key=b"meshnet/", range_end=b"meshnet0", count_only=True)
        counted, _ = await refusal(west.kv.Range(counting))

    assert (code, counted) == (grpc.StatusCode.PERMISSION_DENIED,) * 2


@pytest.mark.parametrize("profile", [Profile.GATEWAY, Profile.ENROLMENT, Profile.NODE])
async def test_a_ghost_whose_certificate_is_no_mirrors_reads_nothing(
    profile: Profile, scene: Scene
) -> None:
    """etcd let anybody in whom its CA had signed, whatever the certificate was for."""
    west = scene.clusters.west
    tls = west.mirror_tls(scene.clusters.east)
    ghost = type(tls)(
        ca=tls.ca, cert=west.pki.certificate_path(profile), key=west.pki.key_path(profile)
    )
    client = RawClient(scene.endpoint, ghost)
    async with client.channel:
        read, _ = await refusal(client.range(KEY))
        asked, _ = await refusal(client.cluster.MemberList(pb.MemberListRequest()))

    by_tls = grpc.StatusCode.UNAVAILABLE
    assert read in (by_tls, grpc.StatusCode.PERMISSION_DENIED)
    assert asked in (by_tls, grpc.StatusCode.UNIMPLEMENTED)


async def test_a_common_name_is_no_authority(scene: Scene) -> None:
    """With one bundle of CAs any of them could sign `CN=west` or `CN=root` (seen)."""
    north = scene.clusters.north
    scene.gateway.set_remotes([scene.clusters.west.remote(), north.remote()])
    for claimed in ("west", "root", "remote"):
        north.enrol(Profile.MIRROR, node=claimed)
        async with scene.client(north) as client:
            answer = await client.range(KEY)
        assert answer.count == 1, "it is north still, whatever its CN says"
    scene.gateway.set_remotes([scene.clusters.west.remote()])
    async with scene.client(north) as client:
        code, _ = await refusal(client.range(KEY))
    assert code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE)


async def test_a_stream_does_not_outlive_its_remotes_right(scene: Scene) -> None:
    """etcd went on to deliver to a watch whose user had been deleted."""
    async with scene.client(scene.clusters.west) as west:
        watch = west.watch()
        await watch.create(KEY)
        await watch.answer()
        scene.gateway.set_remotes([])
        code, _ = await refusal(watch.answer())

    assert code is grpc.StatusCode.PERMISSION_DENIED
