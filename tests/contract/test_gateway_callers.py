"""Whom the mesh gateway believes, over real mutual TLS, while certificates come and go."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import etcd3.etcdrpc as pb
import grpc
import pytest

from meshnet.errors import ConfigError
from meshnet.gateway.server import Gateway
from meshnet.kvstore.channel import Connections
from meshnet.model.remote import RemoteState
from meshnet.pki.certificate import Profile
from tests.support.gateway import (
    IPS,
    IPS_END,
    KEY,
    Clusters,
    Scene,
    clusters_with_etcd,
    refusal,
    serving,
)
from tests.support.trust import RawClient

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]

PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    with clusters_with_etcd(tmp_path_factory.mktemp("clusters")) as made:
        yield made


@pytest.fixture
async def scene(clusters: Clusters) -> AsyncIterator[Scene]:
    async with serving(clusters) as made:
        yield made


@pytest.fixture
async def west(scene: Scene) -> AsyncIterator[RawClient]:
    async with scene.client(scene.clusters.west) as client:
        yield client


async def test_ca_added_at_run_time_works_without_restart(scene: Scene) -> None:
    async with scene.client(scene.clusters.north) as north:
        code, _ = await refusal(north.range(KEY))

    scene.gateway.set_remotes(
        [scene.clusters.west.remote(), scene.clusters.north.remote(state=RemoteState.PENDING)]
    )
    async with scene.client(scene.clusters.north) as north:
        answer = await north.range(KEY)

    assert code is grpc.StatusCode.UNAVAILABLE, "refused by TLS, before any call"
    assert answer.count == 1, "a pending remote may probe"


async def test_certificate_that_claims_another_clusters_name_is_refused(scene: Scene) -> None:
    scene.gateway.set_remotes([scene.clusters.west.remote(), scene.clusters.north.remote()])
    scene.clusters.north.enrol(Profile.MIRROR, claim="west")

    async with scene.client(scene.clusters.north) as impostor:
        code, details = await refusal(impostor.range(KEY))
        stream_code, _ = await refusal(impostor.watch().answer())

    assert (code, stream_code) == (PERMISSION_DENIED, PERMISSION_DENIED)
    assert details == (
        "meshnet gateway: certificate of 'north-1' is not signed by CN=meshnet west mesh CA"
    )


async def test_own_mirror_and_clients_without_certificate_are_refused(scene: Scene) -> None:
    async with scene.client(scene.clusters.east) as east:
        code, details = await refusal(east.range(KEY))
    ca = scene.clusters.east.signer.mesh.certificate.pem
    anonymous = grpc.aio.secure_channel(scene.endpoint, grpc.ssl_channel_credentials(ca))
    async with anonymous:
        anonymous_code, _ = await refusal(pb.KVStub(anonymous).Range(pb.RangeRequest(key=KEY)))

    assert code is PERMISSION_DENIED
    assert details == "meshnet gateway: cluster 'east' is not in the mesh of cluster 'east'"
    assert anonymous_code is grpc.StatusCode.UNAVAILABLE


async def test_expired_certificate_is_refused(scene: Scene) -> None:
    scene.clusters.west.enrol(Profile.MIRROR, lifetime=timedelta(seconds=-1))

    async with scene.client(scene.clusters.west) as west:
        code, _ = await refusal(west.range(KEY))

    assert code is grpc.StatusCode.UNAVAILABLE, "refused by TLS"


async def test_stream_ends_when_its_certificate_does(scene: Scene) -> None:
    scene.clusters.west.enrol(Profile.MIRROR, lifetime=timedelta(seconds=2))

    async with scene.client(scene.clusters.west) as west:
        watch = west.watch()
        await watch.create(IPS, IPS_END)
        assert (await watch.answer()).created
        code, details = await refusal(watch.answer())
        later = await refusal(west.range(KEY))

    assert (code, details) == (
        PERMISSION_DENIED,
        "meshnet gateway: certificate of cluster 'west' expired",
    )
    assert later[0] is PERMISSION_DENIED, "the connection still stands, the call is refused"


async def test_removed_remote_is_cut_off_at_once(scene: Scene, west: RawClient) -> None:
    watch = west.watch()
    await watch.create(IPS, IPS_END)
    await watch.answer()

    scene.gateway.set_remotes([])

    assert await refusal(watch.answer()) == (
        PERMISSION_DENIED,
        "meshnet gateway: cluster 'west' left the mesh of cluster 'east'",
    )
    assert await refusal(west.range(KEY)) == (
        PERMISSION_DENIED,
        "meshnet gateway: cluster 'west' is not in the mesh of cluster 'east'",
    )


async def test_gateways_own_certificate_is_renewed_without_restart(scene: Scene) -> None:
    before = scene.clusters.east.pki.certificate(Profile.GATEWAY)
    scene.clusters.east.enrol(Profile.GATEWAY)
    after = scene.clusters.east.pki.certificate(Profile.GATEWAY)

    seen = await _presented(scene)

    assert before is not None and after is not None
    assert after.fingerprint != before.fingerprint
    assert seen == after.fingerprint


async def _presented(scene: Scene) -> str:
    """Fingerprint of the certificate that the gateway shows in a handshake."""
    context = ssl.create_default_context(
        cadata=scene.clusters.east.signer.mesh.certificate.pem.decode()
    )
    tls = scene.clusters.west.mirror_tls(scene.clusters.east)
    assert isinstance(tls.cert, Path) and isinstance(tls.key, Path)
    context.load_cert_chain(tls.cert, tls.key)
    context.set_alpn_protocols(["h2"])
    host, _, port = scene.endpoint.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return hashlib.sha256(shown).hexdigest()


async def test_second_agent_on_the_port_fails_instead_of_sharing_it(scene: Scene) -> None:
    connections = Connections(
        [scene.clusters.etcd.endpoint], scene.clusters.east.etcd_tls(), server="etcd"
    )
    second = Gateway("east", scene.clusters.east.pki, connections)

    with pytest.raises(ConfigError, match=r"^mesh gateway cannot listen: .*another agent run\?$"):
        await second.start([scene.endpoint])
