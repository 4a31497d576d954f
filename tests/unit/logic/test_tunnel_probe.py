"""Questions in the tunnel's own format, and what their answers say of the path."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.logic import tunnel_probe
from meshnet.logic.tunnel_probe import Direction, judge

NONCE = bytes(range(16))
UP = Direction(
    protocol="vxlan",
    source="192.0.2.2",
    target="192.0.2.1:8472",
    arrived=(200, 1330, 1500),
    seen_source="192.0.2.2",
)
DOWN = attrs.evolve(UP, source="192.0.2.1", target="192.0.2.2:8472", seen_source="192.0.2.1")


@given(
    st.sampled_from(["vxlan", "geneve"]),
    st.sampled_from([4, 6]),
    st.binary(min_size=16, max_size=16),
    st.sampled_from([0, 1]),
    st.integers(min_value=200, max_value=9000),
)
def test_question_survives_the_way_in_its_size(
    protocol: str, version: int, nonce: bytes, side: int, size: int
) -> None:
    payload = tunnel_probe.payload(protocol, nonce, side, size, version)

    question = tunnel_probe.read(protocol, payload, "192.0.2.1")

    assert question == tunnel_probe.Question(nonce, side, size, "192.0.2.1")
    assert len(payload) + (28 if version == 4 else 48) == size


def test_format_is_that_of_the_tunnel() -> None:
    vxlan = tunnel_probe.payload("vxlan", NONCE, 0, 200, 4)
    geneve = tunnel_probe.payload("geneve", NONCE, 0, 200, 4)

    assert vxlan[:8].hex() == "0800000000000000"
    assert geneve[:8].hex() == "0000655800000000"
    assert tunnel_probe.read("geneve", vxlan, "x") is None
    assert tunnel_probe.read("vxlan", geneve, "x") is None


@given(st.sampled_from(["vxlan", "geneve"]), st.binary(max_size=200))
def test_whatever_else_arrives_is_no_question(protocol: str, payload: bytes) -> None:
    assert tunnel_probe.read(protocol, payload, "192.0.2.1") is None


@pytest.mark.parametrize("version", [4, 6])
def test_sizes_end_with_the_interfaces_own_and_hold_the_least_that_serves(version: int) -> None:
    for mtu in (1300, 1428, 1500, 9500):
        tried = tunnel_probe.sizes(mtu, version)
        assert tried == tuple(sorted(set(tried)))
        assert max(tried) == min(mtu, 9000)
        assert (tunnel_probe.smallest(version) in tried) == (mtu >= tunnel_probe.smallest(version))


def verdict(up: Direction, down: Direction) -> dict[str, tuple[bool, str]]:
    checks = judge(up, down, mtu=1500, version=4)
    return {check.check: (check.ok, check.evidence) for check in checks}


def test_both_ways_make_a_path_as_wide_as_its_narrower_one() -> None:
    narrow = attrs.evolve(DOWN, arrived=(200, 1330, 1400))

    assert verdict(UP, narrow)["path-mtu"] == (
        True,
        "1400 bytes pass both ways (our interface: 1500), so endpoints get 1350",
    )


@pytest.mark.parametrize(
    ("up", "down", "check", "evidence"),
    [
        (
            attrs.evolve(UP, arrived=(), seen_source=None),
            DOWN,
            "tunnel-port",
            "no vxlan datagram from 192.0.2.2 reaches 192.0.2.1:8472",
        ),
        (
            UP,
            attrs.evolve(DOWN, arrived=(), seen_source=None),
            "tunnel-port",
            "no vxlan datagram from 192.0.2.1 reaches 192.0.2.2:8472",
        ),
        (
            attrs.evolve(UP, seen_source="198.51.100.7"),
            DOWN,
            "tunnel-port",
            "vxlan from 192.0.2.2 arrives as if from 198.51.100.7",
        ),
        (
            attrs.evolve(UP, arrived=(200, 1300)),
            DOWN,
            "path-mtu",
            "1300 bytes pass, IPv6 endpoints need 1330",
        ),
    ],
)
def test_path_that_does_not_serve_is_told_by_what_fails(
    up: Direction, down: Direction, check: str, evidence: str
) -> None:
    assert verdict(up, down)[check] == (False, evidence)
