"""Keys are spelled once, and documented."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from meshnet.model.addressing import parse_address, parse_prefix
from meshnet.model.identity import LabelSet
from meshnet.registry import schema

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "etcd-schema.md"
READERS = {"ip_text", "ip_of", "cluster_and_node_of", "last_of"}
PATHS = sorted(
    name
    for name, function in vars(schema).items()
    if inspect.isfunction(function) and not name.startswith("_") and name not in READERS
)
NAMES = sorted(name for name, text in vars(schema).items() if name.isupper())


@pytest.mark.parametrize("name", PATHS)
def test_every_key_is_documented(name: str) -> None:
    function = getattr(schema, name)
    placeholders = [f"<{parameter}>" for parameter in inspect.signature(function).parameters]
    assert f"`{function(*placeholders)}" in DOCUMENT.read_text(), name


@pytest.mark.parametrize("name", NAMES)
def test_every_prefix_is_documented(name: str) -> None:
    value = getattr(schema, name)
    for text in (value,) if isinstance(value, str) else value:
        assert text in DOCUMENT.read_text(), name


def test_prefixes_end_with_a_slash_and_keys_do_not() -> None:
    assert schema.nodes("west").endswith("/") and schema.NODES.endswith("/")
    for key in (schema.node("west", "n1"), schema.identity(7), schema.CONFIG, schema.HEARTBEAT):
        assert not key.endswith("/")


def test_keys_are_ciliums() -> None:
    labels = LabelSet.of({"k8s:io.kubernetes.pod.namespace": "shop", "k8s:app": "web"})
    assert schema.node("east", "m1") == "cilium/state/nodes/v1/east/m1"
    assert schema.identity(131073) == "cilium/state/identities/v1/id/131073"
    assert schema.ip(parse_address("10.2.0.5")) == "cilium/state/ip/v1/default/10.2.0.5"
    assert schema.ip(parse_prefix("10.2.0.5/32")) == "cilium/state/ip/v1/default/10.2.0.5"
    assert schema.ip(parse_prefix("fd00::5/128")) == "cilium/state/ip/v1/default/fd00::5"
    assert schema.ip(parse_prefix("10.2.0.16/28")) == "cilium/state/ip/v1/default/10.2.0.16/28"
    assert schema.service("east", "shop", "web") == "cilium/state/services/v1/east/shop/web"
    assert schema.synced("east", schema.CANARIED[0]) == ("cilium/synced/east/cilium/state/nodes/v1")
    assert schema.identity_value(labels, "10.77.0.3") == (
        "cilium/state/identities/v1/value/k8s:app=web;k8s:io.kubernetes.pod.namespace=shop;"
        "/10.77.0.3"
    )


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("cilium/state/ip/v1/default/10.2.0.5", "10.2.0.5"),
        ("cilium/cache/ip/v1/east/10.2.0.16/28", "10.2.0.16/28"),
        ("cilium/state/ip/v1/default/fd00::5", "fd00::5"),
    ],
)
def test_addresses_are_read_out_of_keys(key: str, expected: str) -> None:
    assert schema.ip_of(key) == expected
