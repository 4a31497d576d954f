"""What `mesh join --plan` and `cluster join --plan` ask another side for, over the real port."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest

from meshnet.enrolment.client import EnrolmentClient
from meshnet.enrolment.joining import enrol_node
from meshnet.enrolment.messages import ProbeRequest
from meshnet.errors import Refused, TokenRefused
from meshnet.model.addressing import parse_address, parse_prefix
from meshnet.model.check import Check
from meshnet.model.token import TokenKind
from meshnet.pki.store import PkiStore
from meshnet.registry import schema
from tests.support.enrolment import (
    ClusterWithEtcd,
    RunningCluster,
    cluster_with_etcd,
    running,
)
from tests.support.trust import LOOPBACK

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]


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


@pytest.fixture
async def east(bases: tuple[ClusterWithEtcd, ClusterWithEtcd]) -> AsyncIterator[RunningCluster]:
    async with running(bases[0]) as made:
        yield made


@pytest.fixture
async def west(bases: tuple[ClusterWithEtcd, ClusterWithEtcd]) -> AsyncIterator[RunningCluster]:
    async with running(bases[1]) as made:
        yield made


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.check: check for check in checks}


async def test_clean_plan_of_a_mesh_has_a_line_for_each_question(
    east: RunningCluster, west: RunningCluster
) -> None:
    report = await west.join(await east.token(TokenKind.MESH), plan=True)

    checks = by_name(report.checks)
    assert list(checks) == [
        "name", "id", "ca", "pinned", "pod-cidr", "gateways", "clock", "protocol",
        "tunnel-protocol", "families", "identities", "certificates", "tunnel-port", "path-mtu",
    ]  # fmt: skip
    assert all(check.ok and check.evidence for check in checks.values())
    ours, theirs = (f"127.0.0.1:{side.tunnel.ports['vxlan']}" for side in (west, east))
    assert checks["tunnel-port"].evidence == (
        f"vxlan from 127.0.0.1 reaches {theirs}, vxlan from 127.0.0.1 reaches {ours}"
    )
    assert checks["path-mtu"].evidence.startswith("1500 bytes pass both ways")


async def test_gateway_with_a_certificate_of_another_ca_fails_the_plan_of_both_sides(
    east: RunningCluster, west: RunningCluster
) -> None:
    token = await east.token(TokenKind.MESH)

    report = await west.join(token, plan=True, gateways=[east.gateway])

    check = by_name(report.checks)["certificates"]
    assert not check.ok
    reason = f"({east.gateway}: its certificate is not good: "
    assert check.evidence.startswith(f"no gateway of cluster 'west' can be reached {reason}")
    assert "tunnel-port" not in by_name(report.checks), "tried only when all else is well"


async def test_formats_that_differ_are_each_tried_in_their_own_direction(
    east: RunningCluster, west: RunningCluster
) -> None:
    geneve = attrs.evolve(west, tunnel=attrs.evolve(west.tunnel, sends="geneve"))

    report = await geneve.join(await east.token(TokenKind.MESH), plan=True)

    target = f"127.0.0.1:{east.tunnel.ports['geneve']}"
    evidence = by_name(report.checks)["tunnel-port"].evidence
    assert evidence.startswith(f"geneve from 127.0.0.1 reaches {target}, vxlan from 127.0.0.1")


async def test_tunnel_that_is_deaf_stops_the_join_before_anything_is_written(
    east: RunningCluster, west: RunningCluster
) -> None:
    """Nothing that either side would send fits through west's interface."""
    deaf = attrs.evolve(west, tunnel=attrs.evolve(west.tunnel, mtu=100))
    token = await east.token(TokenKind.MESH)

    report = await deaf.join(token, plan=True)
    with pytest.raises(Refused, match=r"^no vxlan datagram from 127.0.0.1 reaches 127.0.0.1:"):
        await deaf.join(token)

    assert [check.check for check in report.checks if not check.ok] == ["tunnel-port"]
    assert (await east.remotes(), await west.remotes()) == ({}, {})
    assert (await west.join(token)).joined, "the token is still good"


async def test_signer_probes_nobody_without_a_token(east: RunningCluster) -> None:
    client = EnrolmentClient.of(await east.token(TokenKind.MESH))
    request = ProbeRequest(
        secret=secrets.token_bytes(32),
        nonce=bytes(16),
        address=LOOPBACK,
        sends="vxlan",
        port=9,
        sizes=(200,),
    )

    with pytest.raises(TokenRefused, match=r"^token is unknown to cluster 'east' or has expired"):
        await client.probe_tunnel(request)


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": b"short"},
        {"sizes": tuple(range(200, 300))},
        {"sends": "gre"},
        {"port": 0},
        {"address": parse_address("2001:db8::1")},
    ],
)
async def test_probe_of_another_shape_is_refused(
    east: RunningCluster, change: dict[str, object]
) -> None:
    token = await east.token(TokenKind.MESH)
    good = ProbeRequest(
        secret=token.secret, nonce=bytes(16), address=LOOPBACK, sends="vxlan", port=9, sizes=(200,)
    )

    with pytest.raises(Refused, match=r"^tunnel probe"):
        await EnrolmentClient.of(token).probe_tunnel(attrs.evolve(good, **change))


async def test_second_join_of_the_same_clusters_changes_nothing(
    east: RunningCluster, west: RunningCluster
) -> None:
    await west.join(await east.token(TokenKind.MESH))
    before = [
        await side.kv.get(schema.remote(other)) for side, other in ((east, "west"), (west, "east"))
    ]

    again = await west.join(await east.token(TokenKind.MESH))

    after = [
        await side.kv.get(schema.remote(other)) for side, other in ((east, "west"), (west, "east"))
    ]
    assert again.joined
    assert [pair and pair.mod_revision for pair in after] == [
        pair and pair.mod_revision for pair in before
    ]


async def test_plan_of_a_node_is_checked_by_the_signer_and_uses_nothing_up(
    east: RunningCluster, tmp_path: Path
) -> None:
    token = await east.token(TokenKind.NODE)
    pki = PkiStore(tmp_path / "pki")
    address = parse_address("192.0.2.7")

    reply = await enrol_node(
        token,
        pki,
        node="east-1",
        addresses=(address,),
        networks=(parse_prefix("10.1.4.0/24"),),
        plan=True,
    )

    failed = {check.check: check.text for check in reply.checks if not check.ok}
    assert failed == {
        "name": "node 'east-1' is live in cluster 'east': choose another name with --node, or run "
        "`meshnet node delete east-1` first",
        "pod-cidr": "the host is on 10.1.4.0/24, which overlaps PodCIDR 10.1.0.0/16: renumber that "
        "network, or set the cluster up with another --pod-cidr",
    }
    assert not pki.directory.exists() and reply.certificates == {}
    assert reply.tunnel is not None and reply.tunnel.ports == dict(east.tunnel.ports)
    await enrol_node(token, pki, node="east-2", addresses=(address,))
