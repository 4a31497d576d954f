"""The choice of the underlay is a law over candidates."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.errors import ConfigError, InvalidPrefix
from meshnet.model.kernel import Underlay
from meshnet.netlink.underlay import Candidate, choose


def candidate(number: int, *, default_route: bool) -> Candidate:
    return Candidate(
        underlay=Underlay(
            ifname=f"eth{number}",
            ifindex=number + 1,
            mac=f"02:00:00:00:00:{number:02x}",
            mtu=1500,
            addresses=(ip_address(f"192.0.{number}.1"), ip_address(f"fd00:{number:x}::1")),
        ),
        default_route=default_route,
    )


candidates = st.lists(st.booleans(), max_size=5).map(
    lambda routes: [candidate(n, default_route=route) for n, route in enumerate(routes)]
)


@given(candidates)
def test_one_is_chosen_only_where_nothing_else_could_be_meant(found: list[Candidate]) -> None:
    routed = [c for c in found if c.default_route]
    meant = routed if routed else found
    try:
        chosen = choose(found, None)
    except ConfigError as error:
        assert len(meant) != 1
        assert all(c.underlay.ifname in str(error) for c in meant)
    else:
        assert [chosen] == [c.underlay for c in meant]


@given(candidates)
def test_each_can_be_named_and_found_by_either_family(found: list[Candidate]) -> None:
    for number, one in enumerate(found):
        for wanted in (f"eth{number}", f"192.0.{number}.0/24", f"fd00:{number:x}::/64"):
            assert choose(found, wanted) == one.underlay


def test_a_cidr_with_host_bits_is_refused() -> None:
    with pytest.raises(InvalidPrefix, match=r"did you mean 192\.0\.2\.0/24"):
        choose([], "192.0.2.1/24")
