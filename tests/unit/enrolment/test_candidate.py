"""May that cluster be in one mesh with ours? Each reason why not, in an operator's words."""

from __future__ import annotations

import attrs
import pytest

from meshnet.enrolment.candidate import Neighbourhood, as_remote, examine, recognise
from meshnet.enrolment.messages import MeshMember
from meshnet.errors import Refused
from meshnet.model.addressing import parse_address, parse_prefix
from meshnet.model.check import demand
from meshnet.model.cluster import Cluster
from meshnet.model.node import Node
from meshnet.model.remote import Remote, RemoteState
from meshnet.pki.ca import Signer

EAST, WEST, NORTH = (Signer.create(name) for name in ("east", "west", "north"))


def member(name: str = "west", number: int = 2, signer: Signer = WEST) -> MeshMember:
    return MeshMember(
        name=name,
        id=number,
        mesh_ca=signer.mesh.certificate.pem.decode(),
        pod_cidrs=(parse_prefix(f"10.{number}.0.0/16"), parse_prefix(f"fd00:10:{number}::/48")),
        gateways=("192.168.0.2:4243",),
    )


NORTH_REMOTE = as_remote(member("north", 3, NORTH), RemoteState.COMMITTED)
OURS = Neighbourhood(
    cluster=Cluster(name="east", id=1, pod_cidrs=(parse_prefix("10.1.0.0/16"),)),
    mesh_ca=EAST.mesh.certificate,
    nodes=(
        Node(
            name="east-1", cluster="east", cluster_id=1, addresses=(parse_address("192.168.0.1"),)
        ),
    ),
    remotes=(NORTH_REMOTE,),
)


def faults(candidate: MeshMember, ours: Neighbourhood = OURS) -> dict[str, str]:
    return {check.check: check.text for check in examine(ours, candidate) if not check.ok}


def test_stranger_that_collides_with_nothing_passes_every_check() -> None:
    checks = examine(OURS, member())

    demand(checks)
    assert [check.check for check in checks] == [
        "name",
        "id",
        "ca",
        "pinned",
        "pod-cidr",
        "gateways",
        "clock",
        "protocol",
        "tunnel-protocol",
        "families",
        "identities",
    ]


def cidrs(*texts: str) -> MeshMember:
    return attrs.evolve(member(), pod_cidrs=tuple(map(parse_prefix, texts)))


@pytest.mark.parametrize(
    ("candidate", "check", "detail"),
    [
        (
            member("east", 2),
            "name",
            "both clusters are named 'east': set one of them up under another name",
        ),
        (
            attrs.evolve(member(), name="West!"),
            "name",
            "cluster name 'West!' is invalid: lower-case letters, digits and '-', first and last "
            "a letter or digit",
        ),
        (
            member("west", 1),
            "id",
            "clusters 'east' and 'west' both have id 1: set one of them up with another --id",
        ),
        (
            member("west", 3),
            "id",
            "clusters 'north' and 'west' both have id 3: set one of them up with another --id",
        ),
        (attrs.evolve(member(), id=300), "id", "cluster id 300 is out of range: 1 to 255"),
        (
            cidrs("10.1.128.0/17"),
            "pod-cidr",
            "PodCIDR 10.1.128.0/17 of cluster 'west' overlaps PodCIDR 10.1.0.0/16 of cluster "
            "'east'",
        ),
        (
            cidrs("10.0.0.0/14"),
            "pod-cidr",
            "PodCIDR 10.0.0.0/14 of cluster 'west' overlaps PodCIDR 10.1.0.0/16 of cluster 'east'",
        ),
        (
            cidrs("fd00:10:3:1::/64"),
            "pod-cidr",
            "PodCIDR fd00:10:3:1::/64 of cluster 'west' overlaps PodCIDR fd00:10:3::/48 of "
            "cluster 'north'",
        ),
        (
            cidrs("100.64.7.0/24"),
            "pod-cidr",
            "PodCIDR 100.64.7.0/24 of cluster 'west' overlaps service CIDR 100.64.0.0/16 of "
            "cluster 'east'",
        ),
        (
            cidrs("192.168.0.0/24"),
            "pod-cidr",
            "PodCIDR 192.168.0.0/24 of cluster 'west' contains node 'east-1' (192.168.0.1) of "
            "cluster 'east'",
        ),
        (cidrs(), "pod-cidr", "cluster 'west' names 0 PodCIDRs: 1 to 16"),
        (
            attrs.evolve(member(), gateways=()),
            "gateways",
            "cluster 'west' names 0 gateways: 1 to 64",
        ),
        (
            attrs.evolve(member(), gateways=("unix:/run/x",)),
            "gateways",
            "gateway 'unix:/run/x' of cluster 'west' is not host:port",
        ),
        (
            attrs.evolve(member(), mesh_ca="hello"),
            "ca",
            "not a PEM certificate: Unable to load PEM file. See https://cryptography.io/en/latest"
            "/faq/#why-can-t-i-import-my-pem-file for more details. MalformedFraming",
        ),
        (
            member(signer=NORTH),
            "ca",
            "mesh CA of cluster 'west' is named like that of cluster 'north': "
            "CN=meshnet north mesh CA",
        ),
        (
            member(signer=Signer.create("east")),
            "ca",
            "mesh CA of cluster 'west' is named like that of cluster 'east': "
            "CN=meshnet east mesh CA",
        ),
    ],
)
def test_collision_is_named_with_both_sides(candidate: MeshMember, check: str, detail: str) -> None:
    found = faults(candidate)

    assert found[check] == detail
    with pytest.raises(Refused):
        demand(examine(OURS, candidate))


def test_cluster_that_joins_a_second_time_is_not_in_its_own_way() -> None:
    ours = attrs.evolve(OURS, remotes=(as_remote(member(), RemoteState.COMMITTED),))

    assert faults(member(), ours) == {}


@pytest.mark.parametrize(
    "changed",
    [
        cidrs("10.2.0.0/15"),
        attrs.evolve(member(), id=9),
        member(signer=Signer.create("west")),
    ],
)
def test_what_was_pinned_at_the_first_join_cannot_be_changed_by_a_second(
    changed: MeshMember,
) -> None:
    ours = attrs.evolve(OURS, remotes=(as_remote(member(), RemoteState.COMMITTED),))

    assert faults(changed, ours)["pinned"] == (
        "cluster 'west' is in the mesh already, with another CA, id or PodCIDR: "
        "run `meshnet mesh leave west` first"
    )


def test_token_alone_is_enough_to_recognise_ourselves() -> None:
    from_token = attrs.evolve(member("east", 1, EAST), pod_cidrs=(), gateways=())

    assert [check.check for check in recognise(OURS, from_token) if not check.ok] == [
        "name",
        "id",
        "ca",
    ]


def test_stored_remote_has_one_ca_whatever_came_behind_it() -> None:
    smuggled = attrs.evolve(
        member(), mesh_ca=member().mesh_ca + NORTH.mesh.certificate.pem.decode()
    )

    stored: Remote = as_remote(smuggled, RemoteState.PENDING)

    assert stored.mesh_ca == member().mesh_ca
