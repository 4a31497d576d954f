"""The replica alone: which operations make our copy right, also when an answer was lost."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.errors import PoisonedKey
from meshnet.kvstore.api import Delete, Deleted, KeyValue, Operation, Put
from meshnet.logic.admission import MAX_MANIFEST_BYTES, MAX_MANIFESTS, MAX_VALUE_BYTES
from meshnet.mesh.boundaries import Boundaries
from meshnet.mesh.claims import Kind, decode_service, kinds, kinds_of
from meshnet.mesh.replica import Replica
from meshnet.model.remote import RemoteKind
from meshnet.registry.codec import decode_shared_manifest
from tests.support.mesh import (
    EAST,
    WEST,
    as_mirrored,
    entry,
    identity_key,
    ip_key,
    node,
    node_key,
    shared_policy,
)

NODES, IPS, IDENTITIES, SERVICES = kinds("west")


def pair(key: str, value: bytes) -> KeyValue:
    return KeyValue(key, value, 1, 1)


def replica() -> Replica:
    made = Replica(Boundaries(EAST).of(WEST), (NODES, IPS, IDENTITIES, SERVICES))
    made.relist(NODES, [pair(*node_key(node(1)))])
    made.written(made.operations())
    return made


ONE, OTHER = (ip_key(entry(1, 5)), (ip_key(entry(1, 5))[0], ip_key(entry(1, 5))[1] + b" "))
OURS = "cilium/cache/ip/v1/west/10.2.1.5"


def test_an_operation_is_due_once() -> None:
    made = replica()
    made.apply(IPS, [pair(*ONE)])
    operations = made.operations()
    assert operations == [Put(OURS, ONE[1])]
    made.written(operations)
    assert made.operations() == []
    made.apply(IPS, [pair(*ONE)])
    assert made.operations() == [], "the same value again is no change"


def test_an_operation_whose_answer_was_lost_is_due_again() -> None:
    made = replica()
    made.apply(IPS, [pair(*ONE)])
    made.doubt(made.operations())
    assert made.operations() == [Put(OURS, ONE[1])]


def test_a_value_that_went_back_while_the_answer_was_lost_is_written_all_the_same() -> None:
    """The lost write may have happened, so that our copy is not what it was before."""
    made = replica()
    made.apply(IPS, [pair(*ONE)])
    made.written(made.operations())
    made.apply(IPS, [pair(*OTHER)])
    made.doubt(made.operations())
    made.apply(IPS, [pair(*ONE)])
    assert made.operations() == [Put(OURS, ONE[1])]


def test_a_key_that_was_never_surely_written_is_deleted_all_the_same() -> None:
    made = replica()
    made.apply(IPS, [pair(*ONE)])
    made.doubt(made.operations())
    made.apply(IPS, [Deleted(ONE[0], 2)])
    assert made.operations() == [Delete(OURS)]


def test_a_value_over_the_limit_is_not_even_decoded() -> None:
    made = replica()
    key, _ = identity_key()
    made.apply(IDENTITIES, [pair(key, b"k" * (MAX_VALUE_BYTES + 1))])
    assert made.operations() == []
    assert "over the limit" in made.refusals[key]


SERVICE = b'{"cluster":"west","namespace":"shop","name":"web","clusterID":2,"backends":%s}'
SERVICE_KEY = "cilium/state/services/v1/west/shop/web"


def test_a_shared_service_is_copied_when_its_backends_are_the_remotes_own() -> None:
    made = replica()
    honest = SERVICE % b'{"10.2.1.5":{"http":{"Protocol":"TCP","Port":8080}}}'
    made.apply(SERVICES, [pair(SERVICE_KEY, honest)])
    operations = made.operations()
    assert operations == [Put("cilium/cache/services/v1/west/shop/web", honest)]
    made.written(operations)

    made.apply(SERVICES, [pair(SERVICE_KEY, SERVICE % b'{"10.1.1.5":{}}')])
    assert made.operations() == [Delete("cilium/cache/services/v1/west/shop/web")]
    assert "backend 10.1.1.5 is outside" in made.refusals[SERVICE_KEY]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (SERVICE.replace(b'"web"', b'"db"') % b"{}", "does not match key"),
        (SERVICE.replace(b":2", b":0") % b"{}", "ClusterID 0 is reserved"),
        (SERVICE % b'{"pod-7":{}}', "'pod-7' is not an IP address"),
        (SERVICE % b"[]", "value.backends"),
    ],
)
def test_a_service_that_does_not_fit_its_key_is_poisoned(value: bytes, reason: str) -> None:
    with pytest.raises(PoisonedKey) as error:
        decode_service(SERVICE_KEY, value)
    assert reason in str(error.value)


_KEYS = dict(
    [*(node_key(node(number)) for number in (1, 2, 3)), identity_key()]
    + [ip_key(entry(number, last)) for number in (1, 2, 3) for last in (2, 3)]
)


def kind_of(key: str) -> Kind:
    return next(k for k in (NODES, IPS, IDENTITIES, SERVICES) if key.startswith(k.exported))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "delete", "relist"]),
            st.sampled_from(sorted(_KEYS)),
            st.sampled_from(["written", "lost, done", "lost, not done"]),
        ),
        max_size=30,
    )
)
def test_whatever_is_written_or_lost_our_copy_comes_to_be_what_is_believed(
    steps: list[tuple[str, str, str]],
) -> None:
    made, remote, ours = (
        replica(),
        dict([node_key(node(1))]),
        as_mirrored(dict([node_key(node(1))])),
    )
    for what, key, fate in steps:
        if what == "put":
            remote[key] = _KEYS[key]
            made.apply(kind_of(key), [pair(key, _KEYS[key])])
        elif what == "delete":
            remote.pop(key, None)
            made.apply(kind_of(key), [Deleted(key, 1)])
        else:
            kind = kind_of(key)
            remote.pop(key, None)  # deleted while nobody watched
            left = [pair(k, v) for k, v in remote.items() if k.startswith(kind.exported)]
            made.relist(kind, left)
        operations = made.operations()
        if fate != "lost, not done":
            _carry_out(operations, ours)
        if fate == "written":
            made.written(operations)
        else:
            made.doubt(operations)
    _carry_out(made.operations(), ours)

    nodes = {f"10.2.{n}." for n in (1, 2, 3) if node_key(node(n))[0] in remote}
    believed = {
        key: value
        for key, value in remote.items()
        if kind_of(key) is not IPS or any(block in key for block in nodes)
    }
    assert ours == as_mirrored(believed)


def _carry_out(operations: list[Operation], store: dict[str, bytes]) -> None:
    for operation in operations:
        if isinstance(operation, Put):
            store[operation.key] = operation.value
        else:
            store.pop(operation.key, None)


ALL_OF_WEST = kinds_of(WEST)
MANIFESTS = ALL_OF_WEST[-1]


def test_manifests_for_the_mesh_are_copied_from_clusters_of_ours_alone() -> None:
    made = Replica(Boundaries(EAST).of(WEST), ALL_OF_WEST)
    policy = shared_policy()
    made.relist(MANIFESTS, [pair(*policy)])
    assert made.operations() == [Put(*item) for item in as_mirrored(dict([policy])).items()]
    cilium = attrs.evolve(WEST, kind=RemoteKind.CILIUM)
    assert [kind.exported for kind in kinds_of(cilium)] == [kind.exported for kind in kinds("west")]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("networkpolicy/shop/web", {"ingress": [{"from": [{"moon": 1}]}]}, "moon: unknown field"),
        ("networkpolicy/shop/other", {}, "does not match key"),
        ("networkpolicy/shop/web", {"ingress": ["x" * MAX_MANIFEST_BYTES]}, "is over the limit"),
        ("networkpolicy/shop/a/web", {}, "is not <cluster>/<kind>"),
        ("north/networkpolicy/shop/web", {}, "is not <cluster>/<kind>"),
        ("web", {}, "is not <cluster>/<kind>"),
    ],
)
def test_a_manifest_that_could_not_be_applied_here_is_refused(
    key: str, value: dict[str, object], reason: str
) -> None:
    made = Replica(Boundaries(EAST).of(WEST), ALL_OF_WEST)
    said = shared_policy(**value)[1]
    made.relist(MANIFESTS, [pair(MANIFESTS.exported + key, said)])
    assert made.operations() == []
    ((_, told),) = made.refusals.items()
    assert reason in told


def test_a_manifest_that_is_not_for_the_mesh_or_no_policy_is_refused() -> None:
    made = Replica(Boundaries(EAST).of(WEST), ALL_OF_WEST)
    key, value = shared_policy()
    private = value.replace(b'"mesh"', b'"cluster"')
    namespace = b'{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","annotations":'
    namespace += b'{"meshnet.io/scope":"mesh"}}}'
    of_namespace = MANIFESTS.exported + "namespace//shop"
    nested = b"[" * 10_000
    made.relist(
        MANIFESTS,
        [pair(key, private), pair(of_namespace, namespace), pair(MANIFESTS.exported + "x", nested)],
    )
    assert made.operations() == []
    assert "is not for the whole mesh" in made.refusals[key]
    assert "is of its own cluster" in made.refusals[of_namespace]


def test_there_is_room_for_so_many_manifests_and_no_more() -> None:
    made = Replica(Boundaries(EAST).of(WEST), ALL_OF_WEST)
    made.relist(MANIFESTS, [pair(*shared_policy(f"p{n}")) for n in range(MAX_MANIFESTS + 9)])
    assert len(made.operations()) == MAX_MANIFESTS
    assert len(made.refusals) == 9
    assert set(made.refusals.values()) == {
        f"more than {MAX_MANIFESTS} keys under {MANIFESTS.exported}"
    }
    assert not made.starved
    made.apply(MANIFESTS, [Deleted(shared_policy("p0")[0], 2)])
    assert made.starved


def test_a_manifest_that_names_another_cluster_as_its_own_is_refused() -> None:
    """Whatever key it came under: we may take the other one's and not its."""
    boundary = Boundaries(EAST).of(WEST)
    manifest = decode_shared_manifest(*shared_policy())
    assert boundary.judge(manifest, ()) is None
    assert boundary.judge(attrs.evolve(manifest, origin="north"), ()) == (
        "is of cluster north, not west"
    )
