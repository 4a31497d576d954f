"""Sets of ports as the kernel writes them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.errors import ConfigError
from meshnet.model.ports import Ports, format_ports, minus, parse_pool, parse_ports, union

ports = st.frozensets(st.integers(0, 40) | st.integers(65500, 65535), max_size=60)


def ranges(numbers: frozenset[int]) -> Ports:
    return parse_ports(",".join(map(str, numbers)))


def numbers(found: Ports) -> set[int]:
    return {port for first, last in found for port in range(first, last + 1)}


@given(ports, ports)
def test_ranges_are_what_sets_of_numbers_are(one: frozenset[int], other: frozenset[int]) -> None:
    for found, expected in (
        (union(ranges(one), ranges(other)), one | other),
        (minus(ranges(one), ranges(other)), one - other),
    ):
        assert numbers(found) == expected
        assert parse_ports(format_ports(found)) == found
        assert all(a[1] + 1 < b[0] for a, b in pairwise(found)), "apart, and in order"


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("", ""),
        ("\n", ""),
        ("80", "80"),
        ("1-2,4", "1-2,4"),
        ("4,1-3", "1-4"),
        ("40000-60999\n", "40000-60999"),
    ],
)
def test_the_kernels_text(text: str, shortest: str) -> None:
    assert format_ports(parse_ports(text)) == shortest


@pytest.mark.parametrize("text", ["a", "1-", "-1", "3-2", "65536", "1,,x", "1 2"])
def test_what_is_no_list_of_ports_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="neither a port nor FIRST-LAST"):
        parse_ports(text)


def test_a_pool() -> None:
    assert parse_pool(" 40000-60999 ") == (40000, 60999)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("40000", "is not FIRST-LAST"),
        ("40000-", "is not FIRST-LAST"),
        ("40000-41000,42000-43000", "is not FIRST-LAST"),
        ("80-2000", "within 1024-65535"),
        ("50000-40000", "within 1024-65535"),
        ("60000-70000", "within 1024-65535"),
        ("40000-40100", "101 ports: 256 at least"),
    ],
)
def test_what_is_no_pool_is_said(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_pool(text)
