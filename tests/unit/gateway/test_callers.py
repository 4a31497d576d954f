"""A caller is whom exactly one pinned CA says it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from meshnet.errors import PermissionRefused
from meshnet.gateway.callers import Callers
from meshnet.model.addressing import parse_prefix
from meshnet.model.remote import EtcdAccess, Remote, RemoteKind
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import Certificate, Profile, Subject, generate_key, make_csr

EAST, WEST, NORTH = (Signer.create(name) for name in ("east", "west", "north"))


def remote(name: str, number: int, signer: Signer) -> Remote:
    return Remote(
        name=name,
        id=number,
        mesh_ca=signer.mesh.certificate.pem.decode(),
        pod_cidrs=(parse_prefix(f"10.{number}.0.0/16"),),
        gateways=(),
    )


def leaf(signer: Signer, cluster: str, profile: Profile = Profile.MIRROR) -> bytes:
    subject = Subject(profile=profile, cluster=cluster, node="n1")
    return signer.sign(make_csr(generate_key(), "n1"), subject).pem


@pytest.fixture
def callers() -> Callers:
    made = Callers("east", lambda: [EAST.mesh.certificate])
    made.replace([remote("west", 2, WEST), remote("north", 3, NORTH)])
    return made


def refusal(callers: Callers, certificate: bytes | None, *, now: datetime | None = None) -> str:
    with pytest.raises(PermissionRefused) as refused:
        callers.admit(certificate, now=now)
    return str(refused.value)


def test_mirror_of_a_remote_is_admitted_under_its_name(callers: Callers) -> None:
    assert callers.admit(leaf(WEST, "west")).cluster == "west"
    assert callers.admit(leaf(NORTH, "north")).cluster == "north"


def test_remote_cannot_claim_to_be_another_though_tls_trusts_both(callers: Callers) -> None:
    message = refusal(callers, leaf(NORTH, "west"))

    assert message == "certificate of 'n1' is not signed by CN=meshnet west mesh CA"


def test_cluster_that_is_no_remote_is_refused(callers: Callers) -> None:
    south = Signer.create("south")

    message = refusal(callers, leaf(south, "south"))

    assert message == "cluster 'south' is not in the mesh of cluster 'east'"


def test_own_nodes_are_no_callers_either(callers: Callers) -> None:
    message = refusal(callers, leaf(EAST, "east"))

    assert message == "cluster 'east' is not in the mesh of cluster 'east'"


def test_gateway_certificate_of_a_remote_is_refused(callers: Callers) -> None:
    message = refusal(callers, leaf(WEST, "west", Profile.GATEWAY))

    assert message == "client certificate is for meshnet://west/gateway/n1, not for a mirror"


def test_node_ca_of_a_remote_proves_nothing_here(callers: Callers) -> None:
    """A node's certificate is for its own cluster's etcd, and names no mirror."""
    message = refusal(callers, leaf(WEST, "west", Profile.NODE))

    assert message == "client certificate is for meshnet://west/node/n1, not for a mirror"


def test_expired_certificate_is_refused_on_a_connection_that_still_stands(
    callers: Callers,
) -> None:
    message = refusal(callers, leaf(WEST, "west"), now=datetime.now(UTC) + timedelta(days=8))

    assert message.startswith("certificate of 'n1' expired at ")


def test_call_without_certificate_is_refused(callers: Callers) -> None:
    assert refusal(callers, None) == "no client certificate: the gateway wants a mirror's"


def test_removed_and_replaced_cas_are_reported_so_that_their_streams_are_cut(
    callers: Callers,
) -> None:
    successor = Signer.create("west")

    assert callers.replace([remote("west", 2, WEST), remote("north", 3, NORTH)]) == frozenset()
    assert callers.replace([remote("west", 2, successor)]) == {"west", "north"}
    assert refusal(callers, leaf(WEST, "west")).startswith("certificate of 'n1' is not signed by")
    assert callers.admit(leaf(successor, "west")).cluster == "west"


def test_bundle_holds_each_pinned_ca_once_and_nothing_that_hides_behind_one() -> None:
    callers = Callers("east", lambda: [EAST.mesh.certificate])
    smuggled = remote("west", 2, WEST)
    both = smuggled.mesh_ca + NORTH.mesh.certificate.pem.decode()
    callers.replace([attrs.evolve(smuggled, mesh_ca=both)])

    assert callers.bundle == EAST.mesh.certificate.pem + WEST.mesh.certificate.pem


def test_remote_with_an_unusable_ca_is_left_out_and_the_others_stay() -> None:
    callers = Callers("east", lambda: [EAST.mesh.certificate])
    broken = attrs.evolve(remote("north", 3, NORTH), mesh_ca="hello")

    callers.replace([broken, remote("west", 2, WEST)])

    assert callers.admit(leaf(WEST, "west")).cluster == "west"
    assert refusal(callers, leaf(NORTH, "north")).startswith("cluster 'north' is not in the mesh")


def test_bundle_is_never_empty() -> None:
    callers = Callers("east", lambda: [EAST.mesh.certificate])

    assert Certificate.parse(callers.bundle).fingerprint == EAST.mesh.certificate.fingerprint


PEER_KEY, OLD_KEY = generate_key(), generate_key()


def peer(key: bytes, *, signer: Signer = EAST, cluster: str = "east", name: str = "cil") -> bytes:
    """A certificate as `mesh access NAME` makes it."""
    subject = Subject(profile=Profile.PEER, cluster=cluster, node=name)
    return signer.sign(make_csr(key, name), subject).pem


def cilium(*keys: bytes) -> Remote:
    """Cluster `cil`, which may read us by these keys."""
    return attrs.evolve(
        remote("cil", 7, EAST),
        mesh_ca="",
        kind=RemoteKind.CILIUM,
        access=EtcdAccess(ca="", cert="", key=""),
        peer_certificates=tuple(peer(key).decode() for key in keys),
    )


@pytest.fixture
def with_cilium(callers: Callers) -> Callers:
    callers.replace([remote("west", 2, WEST), cilium(PEER_KEY)])
    return callers


def test_a_cilium_cluster_is_known_by_the_key_it_was_given_last(with_cilium: Callers) -> None:
    assert with_cilium.admit(peer(PEER_KEY)).cluster == "cil"
    assert with_cilium.admit(leaf(WEST, "west")).cluster == "west"
    assert "`meshnet mesh access cil` made a newer one" in refusal(with_cilium, peer(OLD_KEY))


def test_a_key_that_is_renewed_goes_on_and_one_that_is_replaced_is_cut(callers: Callers) -> None:
    callers.replace([cilium(OLD_KEY)])
    assert callers.replace([cilium(PEER_KEY, OLD_KEY)]) == frozenset()
    assert {callers.admit(peer(key)).cluster for key in (PEER_KEY, OLD_KEY)} == {"cil"}
    assert callers.replace([cilium(PEER_KEY)]) == {"cil"}
    assert "made a newer one" in refusal(callers, peer(OLD_KEY))


@pytest.mark.parametrize(
    "certificate",
    [
        peer(PEER_KEY, signer=WEST),
        peer(PEER_KEY, signer=WEST, cluster="west"),
        peer(PEER_KEY, name="west"),
        peer(PEER_KEY, name="nobody"),
        leaf(EAST, "east", Profile.GATEWAY),
    ],
    ids=["another CA", "a peer of another", "a meshnet cluster", "nobody", "a gateway of ours"],
)
def test_no_other_certificate_is_a_cilium_clusters(
    certificate: bytes, with_cilium: Callers
) -> None:
    refusal(with_cilium, certificate)


def test_a_cilium_cluster_that_was_given_nothing_or_left_cannot_call(with_cilium: Callers) -> None:
    assert with_cilium.replace([cilium()]) == {"cil", "west"}, "their streams are cut"
    refusal(with_cilium, peer(PEER_KEY))
    with_cilium.replace([])
    assert "is not in the mesh" in refusal(with_cilium, peer(PEER_KEY))
