"""May that host be a node of our cluster? What it could collide with, each by name."""

from __future__ import annotations

import attrs
import pytest

from meshnet.enrolment.candidate import as_remote
from meshnet.enrolment.messages import JoinNodeRequest, MeshMember
from meshnet.enrolment.newcomer import Household, examine_node
from meshnet.model.ability import Abilities
from meshnet.model.addressing import parse_address, parse_prefix
from meshnet.model.cluster import Cluster, TunnelProtocol
from meshnet.model.node import Node
from meshnet.model.remote import RemoteState
from meshnet.pki.ca import Signer

WEST = MeshMember(
    name="west",
    id=2,
    mesh_ca=Signer.create("west").mesh.certificate.pem.decode(),
    pod_cidrs=(parse_prefix("10.2.0.0/16"),),
    gateways=("192.168.0.9:4243",),
)
OURS = Household(
    cluster=Cluster(name="east", id=1, pod_cidrs=(parse_prefix("10.1.0.0/16"),)),
    abilities=Abilities(families=(4,)),
    nodes=(
        Node(name="n1", cluster="east", cluster_id=1, addresses=(parse_address("192.168.0.1"),)),
    ),
    remotes=(as_remote(WEST, RemoteState.COMMITTED),),
)
HOST = JoinNodeRequest(
    secret=b"",
    node="n2",
    addresses=(parse_address("192.168.0.2"),),
    requests={},
    abilities=Abilities(families=(4,)),
    networks=(parse_prefix("192.168.0.0/24"),),
    routes=(parse_prefix("10.0.0.0/8"),),
)


def faults(request: JoinNodeRequest, ours: Household = OURS) -> dict[str, str]:
    checks = examine_node(ours, request, again=False)
    return {check.check: check.text for check in checks if not check.ok}


def test_host_that_collides_with_nothing_passes_every_check() -> None:
    checks = examine_node(OURS, HOST, again=False)

    assert faults(HOST) == {}, "a route wider than our PodCIDR is no harm"
    assert [check.check for check in checks] == [
        "name",
        "address",
        "pod-cidr",
        "clock",
        "protocol",
        "tunnel-protocol",
        "families",
    ]


@pytest.mark.parametrize(
    ("change", "check", "text"),
    [
        (
            {"networks": (parse_prefix("10.1.7.0/24"),)},
            "pod-cidr",
            "the host is on 10.1.7.0/24, which overlaps PodCIDR 10.1.0.0/16: renumber that "
            "network, or set the cluster up with another --pod-cidr",
        ),
        (
            {"routes": (parse_prefix("100.64.0.0/16"),)},
            "pod-cidr",
            "the host has a route to 100.64.0.0/16, which would win over service CIDR "
            "100.64.0.0/16: remove the route, or set the cluster up with another --pod-cidr",
        ),
        (
            {"addresses": (parse_address("10.2.0.7"),)},
            "pod-cidr",
            "underlay address 10.2.0.7 lies in PodCIDR 10.2.0.0/16 of cluster 'west': give the "
            "host an address outside, or choose another interface by --underlay",
        ),
        (
            {"abilities": Abilities(families=(6,))},
            "families",
            "our underlay has IPv4, that of host 'n2' IPv6: give the underlay of both sides "
            "addresses of one IP version",
        ),
    ],
)
def test_collision_is_named_with_its_fix(change: dict[str, object], check: str, text: str) -> None:
    assert faults(attrs.evolve(HOST, **change)) == {check: text}


def test_host_that_cannot_take_off_the_clusters_tunnel_is_refused() -> None:
    geneve = attrs.evolve(OURS, cluster=attrs.evolve(OURS.cluster, tunnel=TunnelProtocol.GENEVE))

    assert faults(HOST, geneve) == {
        "tunnel-protocol": "the cluster sends geneve, host 'n2' takes vxlan only: bring it to the "
        "version of meshnet that the cluster has"
    }
