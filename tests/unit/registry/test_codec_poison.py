"""A value that cannot be used says which key, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.errors import PoisonedKey
from meshnet.registry import codec, schema
from tests.unit.registry.test_codec import (
    IDENTITY_KEY,
    IP_KEY,
    IP_VALUE,
    LABELS,
    NODE_KEY,
    NODE_VALUE,
    changed,
)

CIDR = {"IP": "10.1.1.0", "Mask": "////AA=="}


def reason(decode: Callable[..., Any], key: str, value: bytes, **expected: Any) -> str:
    with pytest.raises(PoisonedKey) as caught:
        decode(key, value, **expected)
    assert caught.value.key == key
    assert str(caught.value) == f"{key}: {caught.value.reason}"
    return caught.value.reason


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"{", "not JSON: Expecting property name enclosed in double quotes"),
        (b"\xff", "not JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"[" * 100_000, "not JSON: maximum recursion depth exceeded"),
        (b"[1]", "expected a JSON object, got [1]"),
        (b'{"Name":"n1"}', "required field missing @ value.Cluster"),
        (changed(NODE_VALUE, Name=3), "expected text, got 3 @ value.Name"),
        (changed(NODE_VALUE, ClusterID="1"), 'expected a number, got "1" @ value.ClusterID'),
        (changed(NODE_VALUE, ClusterID=True), "expected a number, got true @ value.ClusterID"),
        (changed(NODE_VALUE, Labels=[1]), "wrong type @ value.Labels"),
        (
            changed(NODE_VALUE, IPAddresses=[{"Type": "InternalIP", "IP": "10.77.0"}]),
            "'10.77.0' is not an IP address @ value.IPAddresses[0].IP",
        ),
        (
            changed(NODE_VALUE, IPv4AllocCIDR={**CIDR, "Mask": "!"}),
            "Only base64 data is allowed @ value.IPv4AllocCIDR.Mask",
        ),
        (
            changed(NODE_VALUE, IPv4AllocCIDR={**CIDR, "Mask": "/wD/AA=="}),
            "mask of 10.1.1.0 is not contiguous",
        ),
        (
            changed(NODE_VALUE, IPv4AllocCIDR={**CIDR, "Mask": "//8="}),
            "mask of 10.1.1.0 has 2 bytes: wrong for IPv4",
        ),
        (
            changed(NODE_VALUE, IPv4AllocCIDR={**CIDR, "IP": "10.1.1.7"}),
            "10.1.1.7/24 has host bits set: did you mean 10.1.1.0/24?",
        ),
        (changed(NODE_VALUE, Name="n2"), "name does not match key: got n2, expected n1"),
        (changed(NODE_VALUE, Cluster="x"), "unexpected cluster name: got x, expected west"),
        (changed(NODE_VALUE, ClusterID=0), "ClusterID 0 is reserved"),
        (changed(NODE_VALUE, ClusterID=7), "unexpected cluster ID: got 7, expected 1"),
    ],
)
def test_a_node_is_refused_with_the_reason(value: bytes, expected: str) -> None:
    assert expected in reason(codec.decode_node, NODE_KEY, value, cluster_id=1)


def test_all_faults_of_a_value_are_named_at_once() -> None:
    value = changed(NODE_VALUE, Name=3, ClusterID="x", BootID=None)
    assert reason(codec.decode_node, NODE_KEY, value).count("@ value.") == 3


def test_a_cluster_id_that_no_cluster_can_have_is_refused() -> None:
    said = "cluster ID 300 is out of range: 1 to 255"
    assert reason(codec.decode_node, NODE_KEY, changed(NODE_VALUE, ClusterID=300)) == said
    key = schema.cluster_config("east")
    assert reason(codec.decode_cluster_config, key, b'{"id":300}') == said
    assert "cluster ID 0 is" in reason(codec.decode_cluster_config, key, b"{}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (changed(IP_VALUE, ID=65599 + 131072), "ID 196671 does not belong to the allocation range"),
        (changed(IP_VALUE, ID=65599), "ID 65599 does not belong to the allocation range of"),
        (changed(IP_VALUE, ID=-1), "ID -1 does not belong to the allocation range of cluster ID 2"),
        (
            changed(IP_VALUE, IP="10.1.1.188"),
            "IP address does not match key: got 10.1.1.188, expected 10.1.1.187",
        ),
        (
            changed(IP_VALUE, Mask="////AA==", IP="10.1.1.0"),
            "IP address does not match key: got 10.1.1.0/24, expected 10.1.1.187",
        ),
        (changed(IP_VALUE, HostIP="host"), "'host' is not an IP address @ value.HostIP"),
        (b'{"IP":"10.1.1.187"}', "required field missing @ value.ID"),
    ],
)
def test_an_address_is_refused_with_the_reason(value: bytes, expected: str) -> None:
    assert expected in reason(codec.decode_ip_entry, IP_KEY, value, cluster_id=2)


def test_reserved_identities_and_missing_hosts_are_accepted() -> None:
    value = changed(IP_VALUE, ID=6, HostIP="", Metadata="cilium-global:default:n1")
    entry = codec.decode_ip_entry(IP_KEY, value, cluster_id=2)
    assert (entry.identity, entry.host, entry.node) == (6, None, "")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("id/6", LABELS, "ID 6 does not belong to the allocation range of cluster ID 2"),
        ("id/65836", LABELS, "ID 65836 does not belong to the allocation range of cluster ID 2"),
        ("id/x", LABELS, "expected a number, got b'x'"),
        ("id/131500", b"k8s:app=a;", "could not find expected label io.cilium.k8s.policy.cluster"),
        ("id/131500", b"k8s:app=a", "labels must end with ';'"),
        ("id/131500", b"app;", "label 'app' is not source:key=value"),
        ("id/131500", b"\xff;", "'utf-8' codec can't decode byte 0xff"),
        (
            "id/131500",
            LABELS.replace(b"east", b"north"),
            "unexpected value for label io.cilium.k8s.policy.cluster: got north, expected east",
        ),
    ],
)
def test_an_identity_is_refused_with_the_reason(key: str, value: bytes, expected: str) -> None:
    full = IDENTITY_KEY.replace("id/131073", key)
    assert expected in reason(codec.decode_identity, full, value, cluster_id=2, cluster="east")


@pytest.mark.parametrize(
    ("decode", "key", "value", "expected"),
    [
        (codec.decode_cluster, schema.CONFIG, b'{"id":1,"name":"_","pod_cidrs":[]}', "'_' is inv"),
        (
            codec.decode_cluster,
            schema.CONFIG,
            b'{"id":1,"name":"a","pod_cidrs":["10.1.0.0/16"],"routing":"magic"}',
            "'magic' is not a valid Routing @ value.routing",
        ),
        (codec.decode_remote, "meshnet/v1/remotes/east", b"{}", "required field missing"),
        (
            codec.decode_remote,
            "meshnet/v1/remotes/east",
            b'{"name":"west","id":1,"mesh_ca":"","pod_cidrs":[],"gateways":[]}',
            "name does not match key: got west, expected east",
        ),
        (
            codec.decode_remote,
            "meshnet/v1/remotes/east",
            b'{"name":"east","id":0,"mesh_ca":"","pod_cidrs":[],"gateways":[]}',
            "cluster ID 0 is out of range: 1 to 255",
        ),
        (
            codec.decode_pod_cidr,
            "meshnet/v1/alloc/pod-cidrs/10.1.0.1/22",
            b'{"node":"n","epoch":1}',
            "10.1.0.1/22 has host bits set",
        ),
        (
            codec.decode_endpoint,
            "meshnet/v1/endpoints/n1/4",
            b'{"id":3,"name":"a","ipv4":"10.1.0.2","netns":"/x"}',
            "id does not match key: got 3, expected 4",
        ),
        (
            codec.decode_token,
            "meshnet/v1/tokens/00",
            b'{"id":"a","kind":"node","expires_at":"2026-01-02T00:00:00"}',
            "has no zone @ value.expires_at",
        ),
    ],
)
def test_our_own_values_are_refused_with_the_reason(
    decode: Callable[..., Any], key: str, value: bytes, expected: str
) -> None:
    assert expected in reason(decode, key, value)


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_whatever_lies_in_a_key_only_ever_poisons_it(value: bytes) -> None:
    for decode, key in (
        (codec.decode_node, NODE_KEY),
        (codec.decode_ip_entry, IP_KEY),
        (codec.decode_identity, IDENTITY_KEY),
        (codec.decode_cluster_config, schema.cluster_config("x")),
        (codec.decode_cluster, schema.CONFIG),
        (codec.decode_remote, schema.remote("x")),
        (codec.decode_endpoint, schema.endpoint("n", 1)),
    ):
        with pytest.raises(PoisonedKey):
            decode(key, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(["Mask", "IP", "HostIP", "ID", "Metadata", "NamedPorts", "Key"]), JSON)
def test_any_type_in_any_field_is_read_or_poisons(field: str, junk: Any) -> None:
    try:
        codec.decode_ip_entry(IP_KEY, changed(IP_VALUE, **{field: junk}), cluster_id=1)
    except PoisonedKey as error:
        assert error.key == IP_KEY
