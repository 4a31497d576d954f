"""Exactly the keys of design section 3 are shown to other clusters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.gateway.filter import Exports, prefix_end

EAST = Exports.of("east")

EXPORTED_PREFIXES = [
    b"cilium/synced/east/",
    b"cilium/state/nodes/v1/east/",
    b"cilium/state/services/v1/east/",
    b"cilium/state/ip/v1/default/",
    b"cilium/state/identities/v1/id/",
    b"meshnet/v1/shared/manifests/east/",
]

FORBIDDEN_KEYS = [
    b"",
    b"\0",
    b"cilium/",
    b"cilium/cluster-config/",
    b"cilium/cluster-config/east2",
    b"cilium/cluster-config/west",
    b"cilium/synced/west/cilium/cache/nodes/v1",
    b"cilium/state/nodes/v1/west/n1",
    b"cilium/state/nodes/v1/east",
    b"cilium/state/nodes/v1/east2/n1",
    b"cilium/state/services/v1/west/shop/web",
    b"cilium/state/identities/v1/value/k8s:app=web;/10.0.0.1",
    b"cilium/state/ip/v1/other/10.0.0.1",
    b"cilium/cache/ip/v1/west/10.2.0.1",
    b"meshnet/v1/config",
    b"meshnet/v1/manifests/networkpolicy/shop/web",
    b"meshnet/v1/shared/manifests/",
    b"meshnet/v1/shared/manifests/west/networkpolicy/shop/web",
    b"meshnet/v1/cache/manifests/west/networkpolicy/shop/web",
    b"meshnet/v1/tokens/abc",
    b"meshnet/v1/remotes/west",
    b"meshnet/v1/leader/mesh",
    b"zzz",
]


@pytest.mark.parametrize(
    "key",
    [
        b"cilium/.heartbeat",
        b"cilium/cluster-config/east",
        *(prefix + b"x" for prefix in EXPORTED_PREFIXES),
    ],
)
def test_exported_key_may_be_read(key: bytes) -> None:
    assert EAST.refusal(key, b"") is None


@pytest.mark.parametrize("prefix", [*EXPORTED_PREFIXES, b"cilium/.heartbeat"])
def test_exported_prefix_may_be_read_and_its_next_page_too(prefix: bytes) -> None:
    end = prefix_end(prefix)

    assert EAST.refusal(prefix, end) is None
    assert EAST.refusal(prefix + b"10.0.0.9\0", end) is None


@pytest.mark.parametrize("key", FORBIDDEN_KEYS)
def test_any_other_key_is_refused(key: bytes) -> None:
    refusal = EAST.refusal(key, b"")

    assert refusal is not None
    assert refusal.endswith("is not exported to other clusters")


@pytest.mark.parametrize("key", [*FORBIDDEN_KEYS, *EXPORTED_PREFIXES, b"cilium/.heartbeat"])
def test_range_to_the_end_of_the_store_is_refused_from_any_key(key: bytes) -> None:
    refusal = EAST.refusal(key, b"\0")

    assert refusal is not None
    assert refusal.endswith("to the end of the store is not exported")


def test_own_cluster_config_is_a_key_and_not_a_prefix() -> None:
    key = b"cilium/cluster-config/east"

    assert EAST.refusal(key, prefix_end(key)) is not None, "it would show east2's too"


@pytest.mark.parametrize(
    ("key", "end"),
    [
        (b"cilium/state/ip/v1/default/", b"zzz"),
        (b"cilium/state/ip/v1/default/", b"cilium/state/ip/v1/default00"),
        (b"a", prefix_end(b"cilium/state/ip/v1/default/")),
        (b"cilium/state/nodes/v1/", prefix_end(b"cilium/state/nodes/v1/")),
        (b"cilium/state/", prefix_end(b"cilium/state/")),
        (b"cilium/state/ip/v1/default/b", b"cilium/state/ip/v1/default/a"),
    ],
)
def test_range_that_reaches_out_on_either_side_is_refused(key: bytes, end: bytes) -> None:
    assert EAST.refusal(key, end) is not None


@given(first=st.binary(max_size=60), end=st.binary(min_size=1, max_size=60), data=st.data())
def test_an_allowed_range_never_contains_a_key_that_is_refused_alone(
    first: bytes, end: bytes, data: st.DataObject
) -> None:
    """The law the whole gateway stands on, over arbitrary ranges around exported ones."""
    borders = [b"", *EXPORTED_PREFIXES, *map(prefix_end, EXPORTED_PREFIXES), *FORBIDDEN_KEYS]
    low = data.draw(st.sampled_from(borders)) + first
    high = data.draw(st.sampled_from(borders)) + end
    if EAST.refusal(low, high) is None:
        for key in (low, *FORBIDDEN_KEYS):
            inside = low <= key < high
            assert not inside or EAST.refusal(key, b"") is None


def test_refusal_is_one_line_whatever_bytes_are_asked_for() -> None:
    refusal = EAST.refusal(b"a\nb\xff" + b"c" * 5000, b"")

    assert refusal is not None
    assert "\n" not in refusal
    assert refusal.isascii()
    assert len(refusal) < 250
