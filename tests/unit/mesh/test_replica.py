"""The replica alone: which operations make our copy right, also when an answer was lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.errors import PoisonedKey
from meshnet.kvstore.api import Delete, Deleted, KeyValue, Operation, Put
from meshnet.logic.admission import MAX_VALUE_BYTES
from meshnet.mesh.boundaries import Boundaries
from meshnet.mesh.claims import Kind, decode_service, kinds
from meshnet.mesh.replica import Replica
from tests.support.mesh import EAST, WEST, as_mirrored, entry, identity_key, ip_key, node, node_key

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
