"""ClusterService, byte for byte as Cilium's, and whose an address is."""

from __future__ import annotations

import json
from ipaddress import ip_address

import attrs
import pytest

from meshnet.errors import PoisonedKey
from meshnet.model.service import Protocol, RemoteService
from meshnet.registry.service_codec import (
    decode_service,
    decode_service_address,
    encode_service,
    encode_service_address,
)

KEY = "cilium/cache/services/v1/east/shop/web"
CILIUMS = (
    b'{"cluster":"east","namespace":"shop","name":"web","frontends":{},'
    b'"backends":{"10.2.0.5":{"http":{"Protocol":"TCP","Port":8080}}},"hostnames":{},"zones":{},'
    b'"labels":{},"selector":{"app":"web"},"includeExternal":true,"shared":true,"clusterID":2}'
)
WEB = RemoteService(
    cluster="east",
    cluster_id=2,
    namespace="shop",
    name="web",
    backends={ip_address("10.2.0.5"): {"http": (Protocol.TCP, 8080)}},
)


def test_a_service_is_written_as_cilium_writes_it() -> None:
    assert encode_service(WEB, {"app": "web"}) == CILIUMS


def test_both_families_come_back_in_one_order() -> None:
    ports = {"http": (Protocol.TCP, 80)}
    hosts = [ip_address("fd00::1"), ip_address("10.0.0.1")]
    both = attrs.evolve(WEB, backends=dict.fromkeys(hosts, ports))
    value = encode_service(both, {})
    assert decode_service(KEY, value) == both
    turned = attrs.evolve(WEB, backends=dict.fromkeys(reversed(hosts), ports))
    assert encode_service(turned, {}) == value


def test_what_cilium_wrote_is_read() -> None:
    assert decode_service(KEY, CILIUMS) == WEB


def test_null_maps_and_unknown_fields_are_nothing() -> None:
    value = {"cluster": "east", "namespace": "shop", "name": "web", "clusterID": 2,
             "frontends": None, "backends": {"10.2.0.5": None}, "later": 1}  # fmt: skip
    found = decode_service(KEY, json.dumps(value).encode())
    assert found.backends == {ip_address("10.2.0.5"): {}}
    assert not found.shared


def test_ports_that_nobody_here_could_ask_for_are_left_out() -> None:
    value = json.loads(CILIUMS)
    value["backends"]["10.2.0.5"]["call"] = {"Protocol": "SCTP", "Port": 1}
    value["backends"]["10.2.0.5"]["none"] = {"Protocol": "TCP", "Port": 0}
    assert decode_service(KEY, json.dumps(value).encode()) == WEB


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "api"}, "namespaced name does not match key"),
        ({"cluster": "west"}, "unexpected cluster name: got west, expected east"),
        ({"backends": {"x": {}}}, "'x'"),
        ({"backends": {"10.2.0.5": {"a": {"Protocol": 6, "Port": 1}}}}, "expected text"),
    ],
)
def test_a_service_that_cannot_be_is_poisoned(change: dict[str, object], said: str) -> None:
    value = json.loads(CILIUMS) | change
    with pytest.raises(PoisonedKey, match=said):
        decode_service(KEY, json.dumps(value).encode())


def test_an_addresss_owner_comes_back() -> None:
    key = "meshnet/v1/alloc/service-addresses/fd00:100:64::7"
    assert decode_service_address(key, encode_service_address("shop", "web")) == (
        ip_address("fd00:100:64::7"),
        ("shop", "web"),
    )
    with pytest.raises(PoisonedKey):
        decode_service_address("meshnet/v1/alloc/service-addresses/x", b"{}")
