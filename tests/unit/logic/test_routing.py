"""Which mode for which peer: by what was asked for, what the way is, and what was probed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.logic.routing import by_tunnel, candidates, decide
from meshnet.model.cluster import Routing, TunnelProtocol
from meshnet.model.dataplane import Mode, Modes
from meshnet.model.kernel import Hop

PEER = {4: ip_address("192.0.2.2"), 6: ip_address("2001:db8::2")}
ROUTER = {4: ip_address("192.0.2.254"), 6: ip_address("2001:db8::ff")}
VXLAN, GENEVE = TunnelProtocol.VXLAN, TunnelProtocol.GENEVE


def on_link(version: int, ifindex: int = 2) -> Hop:
    return Hop(address=PEER[version], ifindex=ifindex, on_link=True)


def routed(version: int, ifindex: int = 2) -> Hop:
    return Hop(address=ROUTER[version], ifindex=ifindex, on_link=False)


BOTH = {4: on_link(4), 6: on_link(6)}
hop_maps = st.dictionaries(
    st.sampled_from([4, 6]), st.tuples(st.booleans(), st.integers(1, 3))
).map(
    lambda drawn: {
        version: (on_link if near else routed)(version, ifindex)
        for version, (near, ifindex) in drawn.items()
    }
)
confirmations = st.frozensets(st.sampled_from([4, 6]))


@pytest.mark.parametrize("tunnel", [VXLAN, GENEVE])
def test_routing_tunnel_never_asks_for_more(tunnel: TunnelProtocol) -> None:
    assert candidates(Routing.TUNNEL, BOTH) == {}
    way = decide(Routing.TUNNEL, tunnel, BOTH, {4, 6}, outer=4)

    assert way.modes == by_tunnel(tunnel).modes
    assert way.next_hops == (PEER[4], PEER[6])


def test_auto_is_native_on_the_link_once_the_probe_came_through() -> None:
    before = decide(Routing.AUTO, GENEVE, BOTH, (), outer=4)
    after = decide(Routing.AUTO, GENEVE, BOTH, {4, 6}, outer=4)

    assert before.modes == Modes(ipv4=Mode.GENEVE, ipv6=Mode.GENEVE)
    assert after.modes == Modes(ipv4=Mode.NATIVE, ipv6=Mode.NATIVE)
    assert after.ifindex == 2


def test_auto_does_not_try_behind_a_router_and_native_does() -> None:
    hops = {4: routed(4)}

    assert candidates(Routing.AUTO, hops) == {}
    assert decide(Routing.AUTO, VXLAN, hops, {4}, outer=4).mode(4) is Mode.VXLAN
    way = decide(Routing.NATIVE, VXLAN, hops, {4}, outer=4)
    assert way.mode(4) is Mode.NATIVE
    assert way.next_hop(4) == ROUTER[4]


def test_native_without_an_answer_is_a_tunnel() -> None:
    assert decide(Routing.NATIVE, VXLAN, BOTH, (), outer=4).mode(4) is Mode.VXLAN


def test_ipv4_passes_an_ipv6_underlay_and_ipv6_no_ipv4_one() -> None:
    six = decide(Routing.AUTO, VXLAN, {6: on_link(6)}, {4, 6}, outer=6)
    four = decide(Routing.AUTO, VXLAN, {4: on_link(4)}, {4, 6}, outer=4)

    assert six.modes == Modes(ipv4=Mode.NATIVE, ipv6=Mode.NATIVE)
    assert six.next_hop(4) == PEER[6]
    assert four.modes == Modes(ipv4=Mode.NATIVE, ipv6=Mode.VXLAN)
    assert four.next_hop(6) is None


def test_ipv4_behind_a_router_passes_by_the_neighbour_that_ipv6_has() -> None:
    way = decide(Routing.AUTO, VXLAN, {4: routed(4), 6: on_link(6)}, {4}, outer=4)

    assert way.mode(4) is Mode.NATIVE
    assert way.next_hop(4) == PEER[6]


def test_a_family_that_leaves_by_another_interface_takes_the_tunnel() -> None:
    hops = {4: on_link(4, ifindex=2), 6: on_link(6, ifindex=3)}
    way = decide(Routing.AUTO, VXLAN, hops, {4, 6}, outer=4)

    assert way.modes == Modes(ipv4=Mode.NATIVE, ipv6=Mode.VXLAN)
    assert (way.next_hops, way.ifindex) == ((PEER[4],), 2)


def test_nothing_known_is_the_tunnel_by_the_kernels_routes() -> None:
    assert decide(Routing.AUTO, GENEVE, {}, {4, 6}, outer=4) == by_tunnel(GENEVE)


@given(
    routing=st.sampled_from(Routing),
    tunnel=st.sampled_from(TunnelProtocol),
    hops=hop_maps,
    confirmed=confirmations,
    outer=st.sampled_from([4, 6]),
)
def test_a_family_is_native_only_where_it_was_asked_for_probed_and_has_a_hop(
    routing: Routing,
    tunnel: TunnelProtocol,
    hops: dict[int, Hop],
    confirmed: frozenset[int],
    outer: int,
) -> None:
    way = decide(routing, tunnel, hops, confirmed, outer=outer)

    for family in (4, 6):
        mode, hop = way.mode(family), way.next_hop(family)
        if mode is not Mode.NATIVE:
            assert mode == Mode(tunnel.value)
            continue
        assert routing is not Routing.TUNNEL
        assert family in confirmed
        assert hop is not None
        used = hops[hop.version]
        assert used.address == hop
        assert used.ifindex == way.ifindex
        assert used.on_link or routing is Routing.NATIVE
    assert len({hop.version for hop in way.next_hops}) == len(way.next_hops)
    assert all(hops[hop.version].ifindex == way.ifindex for hop in way.next_hops)
