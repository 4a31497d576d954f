"""A Cilium cluster as a remote: `mesh add` and `mesh access`, each side over real TLS.

east: etcd, gateway ── reads ──▶ etcd of `cil` (its clustermesh-apiserver)
                    ◀── reads ── a client with the files of `mesh access`
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest
import yaml

from meshnet.cli import etcd_config
from meshnet.errors import ConfigError, Denied, NotFound, Refused, Unreachable
from meshnet.kvstore.etcd import EtcdKV
from meshnet.mesh import peering
from meshnet.mesh.boundaries import Boundaries
from meshnet.mesh.join import leave
from meshnet.mesh.mirror import Mirror
from meshnet.model.addressing import parse_prefix
from meshnet.model.remote import EtcdConfig, Remote, RemoteKind
from meshnet.pki.certificate import Profile
from meshnet.registry import codec, schema
from tests.support import cilium
from tests.support.enrolment import RunningCluster, cluster_with_etcd, running
from tests.support.etcd import EtcdProcess, Pki, etcd, free_port
from tests.support.mesh import contents, lead, put_all, status_when

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]

POD_CIDRS = (parse_prefix(cilium.POD_CIDR),)


@attrs.frozen
class Apiserver:
    """The etcd of `cil`, and the configuration with which it is read."""

    process: EtcdProcess
    pki: Pki

    def config(self, *, endpoint: str | None = None, ca: str | None = None) -> EtcdConfig:
        tls = self.pki.issue("remote", Profile.NODE)
        text = yaml.safe_dump(
            {
                "endpoints": [f"https://{endpoint or 'cil.mesh.cilium.io'}:{self.process.port}"],
                "trusted-ca-file": "ca.crt",
                "cert-file": "remote.crt",
                "key-file": "remote.key",
                "cilium-host-aliases": [{"hostname": "cil.mesh.cilium.io", "ips": ["127.0.0.1"]}],
            }
        )
        files = {path.name: path.read_text() for path in (tls.ca, tls.cert, tls.key)}  # type: ignore[union-attr]
        return etcd_config.read(text, files | ({"ca.crt": ca} if ca else {}))


@pytest.fixture(scope="module")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apiserver]:
    directory = tmp_path_factory.mktemp("cil")
    pki = Pki.create(directory / "pki")
    # Its certificate has the name, and the address only because etcd calls itself by it.
    server = pki.issue("server", Profile.ETCD, dns_names=("cil.mesh.cilium.io",))
    with etcd(directory / "etcd", server) as process:
        asyncio.run(_seed(process))
        yield Apiserver(process, pki)


async def _seed(process: EtcdProcess) -> None:
    kv = process.kv()
    await put_all(kv, {key: value.encode() for key, value in cilium.keys().items()})
    await kv.close()


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[RunningCluster]:
    with cluster_with_etcd(tmp_path, "east", 1) as base:
        async with running(base) as made:
            yield made


async def added(east: RunningCluster, config: EtcdConfig, name: str = cilium.CLUSTER) -> Remote:
    await peering.add(
        name,
        config,
        POD_CIDRS,
        kv=east.kv,
        cluster=east.trusted.cluster,
        pki=east.trusted.pki,
    )
    found = await east.kv.get(schema.remote(name))
    assert found is not None
    return codec.decode_remote(found.key, found.value)


async def given(east: RunningCluster, *, renew: bool = False) -> EtcdConfig:
    """What `mesh access` gives."""
    return await peering.access(
        cilium.CLUSTER,
        renew=renew,
        kv=east.kv,
        cluster=east.trusted.cluster,
        pki=east.trusted.pki,
        gateways=lambda _: (east.gateway,),
    )


def reader(config: EtcdConfig) -> EtcdKV:
    """Who was given it."""
    return peering.open_etcd("east", config.endpoints, config.access)


async def test_a_cilium_cluster_is_read_by_a_name_that_only_its_aliases_know(
    east: RunningCluster, apiserver: Apiserver
) -> None:
    remote = await added(east, apiserver.config())

    assert (remote.kind, remote.id, remote.pod_cidrs) == (RemoteKind.CILIUM, 7, POD_CIDRS)
    boundaries = Boundaries(east.trusted.cluster)
    boundaries.remotes({remote.name: remote})
    assert remote.access is not None
    access = remote.access
    mirror = Mirror(
        remote,
        east.kv,
        await lead(east.kv),
        boundaries,
        lambda remote: peering.open_etcd(remote.name, remote.gateways, access),
        publish_s=0.05,
    )
    task = asyncio.create_task(mirror.run())
    try:
        status = await status_when(east.kv, lambda found: found.ready, cluster=cilium.CLUSTER)
        cache = await contents(east.kv, schema.CACHES)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    counts = (status.nodes, status.identities, status.endpoints, status.services)
    assert counts == (1, 1, 1, 1)
    assert not status.refusals, "what Cilium's own agent writes is believed"
    node = cilium.keys()[f"cilium/state/nodes/v1/{cilium.CLUSTER}/{cilium.NODE}"]
    assert cache[f"cilium/cache/nodes/v1/{cilium.CLUSTER}/{cilium.NODE}"] == node.encode()


async def test_adding_again_replaces_credentials_and_keeps_what_was_given_to_it(
    east: RunningCluster, apiserver: Apiserver
) -> None:
    first = await added(east, apiserver.config())
    await given(east)
    again = await added(east, apiserver.config())

    assert again.access != first.access
    assert len(again.peer_certificates) == 1, "it may still read us"


async def test_a_cluster_that_cuts_identities_elsewhere_is_not_added(
    east: RunningCluster, apiserver: Apiserver
) -> None:
    key = schema.cluster_config(cilium.CLUSTER)
    theirs = apiserver.process.kv()
    await theirs.put(key, b'{"id":7,"capabilities":{"maxConnectedClusters":511}}')
    try:
        with pytest.raises(Refused, match=r"255 here and 511 in cluster 'cil'.*: set it to 255 in"):
            await added(east, apiserver.config())
    finally:
        await theirs.put(key, cilium.keys()[key].encode())
        await theirs.close()
    assert await east.kv.get(schema.remote(cilium.CLUSTER)) is None


async def test_what_access_gives_reads_us_until_it_is_given_anew_or_the_cluster_leaves(
    east: RunningCluster, apiserver: Apiserver
) -> None:
    await added(east, apiserver.config())
    kv = reader(await given(east))
    await _until_admitted(kv)
    assert [pair.key for pair in (await kv.list(schema.nodes("east"))).pairs]
    with pytest.raises(Denied, match="not exported"):
        await kv.get("meshnet/v1/remotes/cil")

    fresh = reader(await given(east))
    await _until_admitted(fresh)
    await _until_refused(kv, "a newer one")

    await leave(cilium.CLUSTER, kv=east.kv)
    await _until_refused(fresh, "is not in the mesh")
    await kv.close()
    await fresh.close()


async def test_what_is_renewed_goes_on_until_the_next_one_is_made(
    east: RunningCluster, apiserver: Apiserver
) -> None:
    await added(east, apiserver.config())
    async with contextlib.AsyncExitStack() as stack:
        first = reader(await given(east))
        await _until_admitted(first)
        second = reader(await given(east, renew=True))
        await _until_admitted(second)
        for kv in (first, second):
            stack.push_async_callback(kv.close)
        assert await first.get(schema.cluster_config("east"))

        third = reader(await given(east, renew=True))
        stack.push_async_callback(third.close)
        await _until_admitted(third)
        await _until_refused(first, "a newer one")
        assert await second.get(schema.cluster_config("east"))

        await given(east)
        await _until_refused(second, "a newer one")
        await _until_refused(third, "a newer one")


async def _until_admitted(kv: EtcdKV) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(Denied):
                await kv.get(schema.cluster_config("east"))
                return
            await asyncio.sleep(0.02)


async def _until_refused(kv: EtcdKV, reason: str) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await kv.get(schema.cluster_config("east"))
            except Denied as error:
                assert reason in str(error)
                return
            await asyncio.sleep(0.02)


async def test_an_etcd_that_is_not_that_clusters_is_refused_and_nothing_is_stored(
    east: RunningCluster, apiserver: Apiserver
) -> None:
    with pytest.raises(NotFound, match="no cilium/cluster-config/other"):
        await added(east, apiserver.config(), "other")
    stranger = east.trusted.signer.mesh.certificate.pem.decode()
    with pytest.raises(Unreachable, match="TLS verification failed"):
        await added(east, apiserver.config(ca=stranger))
    with pytest.raises(Unreachable):
        await added(east, attrs.evolve(apiserver.config(), endpoints=(f"127.0.0.1:{free_port()}",)))
    assert await east.remotes() == {}


@pytest.mark.parametrize(
    ("name", "pod_cidr", "said"),
    [
        ("east", "10.7.0.0/16", "both clusters are named 'east'"),
        ("cil", "10.1.128.0/17", "overlaps PodCIDR 10.1.0.0/16 of cluster 'east'"),
        ("Cil", "10.7.0.0/16", "cluster name 'Cil' is invalid"),
        ("cil", "127.0.0.0/8", "contains node 'east-1'"),
    ],
)
async def test_a_cluster_that_collides_is_refused_before_it_is_called(
    name: str, pod_cidr: str, said: str, east: RunningCluster, apiserver: Apiserver
) -> None:
    config = attrs.evolve(apiserver.config(), endpoints=("127.0.0.1:1",))
    with pytest.raises((Refused, ConfigError), match=said):
        await peering.add(
            name,
            config,
            (parse_prefix(pod_cidr),),
            kv=east.kv,
            cluster=east.trusted.cluster,
            pki=east.trusted.pki,
        )


async def test_what_was_pinned_stays_pinned(east: RunningCluster, apiserver: Apiserver) -> None:
    await added(east, apiserver.config())
    with pytest.raises(Refused, match=r"mesh leave cil` first"):
        await peering.add(
            cilium.CLUSTER,
            apiserver.config(),
            (*POD_CIDRS, parse_prefix("10.8.0.0/16")),
            kv=east.kv,
            cluster=east.trusted.cluster,
            pki=east.trusted.pki,
        )


async def test_access_is_refused_to_whom_it_is_not_for(
    east: RunningCluster, apiserver: Apiserver
) -> None:
    with pytest.raises(NotFound, match="mesh add cil"):
        await given(east)
    await added(east, apiserver.config())
    ca_key = east.trusted.pki.directory / "mesh-ca.key"
    ca_key.rename(ca_key.with_suffix(".away"))
    with pytest.raises(Refused, match="no signer"):
        await given(east)
