"""The stale hold: no packet is cut on a deletion that its owner did not announce."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from meshnet.logic.stale import HOLD_S, PROBE_S, SETTLE_S, Effective, StaleHold
from meshnet.model.addressing import Prefix
from meshnet.model.endpoint import IpEntry
from meshnet.model.node import Node


def node(number: int) -> Node:
    return Node(
        name=f"east-{number}",
        cluster="east",
        cluster_id=1,
        addresses=(ip_address(f"172.20.0.{number}"),),
    )


def entry(number: int, last: int) -> IpEntry:
    """An endpoint's address on node `number`."""
    return IpEntry(
        prefix=ip_network(f"10.1.{number}.{last}/32"),
        host=ip_address(f"172.20.0.{number}"),
        identity=65536 + 300,
    )


def nodes(*numbers: int) -> dict[str, Node]:
    return {node(number).name: node(number) for number in numbers}


def ips(*entries: IpEntry) -> dict[Prefix, IpEntry]:
    return {one.prefix: one for one in entries}


def many(number: int, count: int) -> list[IpEntry]:
    return [entry(number, last) for last in range(2, 2 + count)]


def test_an_announced_end_goes_after_the_settle_time_and_not_before() -> None:
    hold, ended = StaleHold(), entry(1, 9)
    hold.observe(nodes(1), ips(entry(1, 5), ended), 0.0)

    seen = hold.observe(nodes(1), ips(entry(1, 5)), 10.0)
    assert ended.prefix in seen.ips
    assert not seen.stale_ips, "nobody knows yet that it was not announced"
    assert seen.look_again == 10.0 + SETTLE_S

    seen = hold.observe(nodes(1), ips(entry(1, 5)), 10.0 + SETTLE_S)
    assert seen.ips == ips(entry(1, 5))
    assert seen.look_again is None


def test_rows_of_a_node_whose_lease_expired_stay_stale_for_the_hold() -> None:
    hold, lost = StaleHold(), entry(2, 9)
    hold.observe(nodes(1, 2), ips(entry(1, 5), lost), 0.0)

    for now in (10.0, 20.0, 10.0 + HOLD_S - 0.01):
        seen = hold.observe(nodes(1), ips(entry(1, 5)), now)
        assert seen.stale_ips == {lost.prefix}
        assert seen.stale_nodes == {"east-2"}
        assert seen.nodes["east-2"] == node(2), "its tunnel must go on to work"
        assert seen.look_again == 10.0 + HOLD_S

    seen = hold.observe(nodes(1), ips(entry(1, 5)), 10.0 + HOLD_S)
    assert (seen.nodes, seen.ips) == (nodes(1), ips(entry(1, 5)))


def test_the_hold_begins_whichever_watch_tells_of_the_expiry_first() -> None:
    for ips_first in (True, False):
        hold, lost = StaleHold(), entry(2, 9)
        hold.observe(nodes(1, 2), ips(lost), 0.0)
        between = (nodes(1, 2), ips()) if ips_first else (nodes(1), ips(lost))
        hold.observe(*between, 10.0)
        seen = hold.observe(nodes(1), ips(), 10.0 + SETTLE_S / 2)
        assert seen.stale_ips == {lost.prefix}, f"ips first: {ips_first}"


def test_a_row_that_comes_back_within_the_hold_is_simply_fresh() -> None:
    hold, lost = StaleHold(), entry(2, 9)
    hold.observe(nodes(2), ips(lost), 0.0)
    hold.observe({}, {}, 10.0)

    seen = hold.observe(nodes(2), ips(lost), 11.0)

    assert (seen.nodes, seen.ips) == (nodes(2), ips(lost))
    assert not seen.stale_ips and not seen.stale_nodes
    assert seen.look_again is None


def test_a_held_row_outlives_the_return_of_its_node_until_the_node_had_time_to_put_it() -> None:
    hold, lost = StaleHold(), entry(2, 9)
    hold.observe(nodes(2), ips(lost), 0.0)
    hold.observe({}, {}, 10.0)

    assert hold.observe(nodes(2), {}, 11.0).stale_ips == {lost.prefix}
    assert not hold.observe(nodes(2), {}, 10.0 + HOLD_S).ips


def test_a_node_that_answers_the_path_probe_keeps_its_rows_beyond_the_hold() -> None:
    hold, lost = StaleHold(), entry(2, 9)
    hold.observe(nodes(2), ips(lost), 0.0)
    hold.observe({}, {}, 10.0)

    seen = hold.observe({}, {}, 500.0, answering={"east-2"})
    assert seen.stale_ips == {lost.prefix}
    assert seen.look_again == 500.0 + PROBE_S

    assert hold.observe({}, {}, 501.0) == Effective(
        nodes={}, ips={}, stale_nodes=frozenset(), stale_ips=frozenset(), look_again=None
    )


def test_a_tenth_of_a_cluster_gone_at_once_waits_even_though_its_node_is_there() -> None:
    rows = many(1, 200)
    hold = StaleHold()
    hold.observe(nodes(1), ips(*rows), 0.0)

    seen = hold.observe(nodes(1), ips(*rows[21:]), 10.0)
    assert len(seen.stale_ips) == 21
    assert len(hold.observe(nodes(1), ips(*rows[21:]), 39.9).ips) == 200
    assert len(hold.observe(nodes(1), ips(*rows[21:]), 40.0).ips) == 179


def test_a_mass_deletion_told_in_parts_is_one_mass_deletion() -> None:
    rows = many(1, 100)
    hold = StaleHold()
    hold.observe(nodes(1), ips(*rows), 0.0)
    hold.observe(nodes(1), ips(*rows[10:]), 10.0)

    assert len(hold.observe(nodes(1), ips(*rows[20:]), 10.0 + SETTLE_S / 2).stale_ips) == 20
    assert len(hold.observe(nodes(1), ips(*rows[25:]), 10.0 + SETTLE_S * 0.9).stale_ips) == 25


def test_a_few_endpoints_of_a_small_cluster_may_all_end_at_once() -> None:
    rows = many(1, 8)
    hold = StaleHold()
    hold.observe(nodes(1), ips(*rows), 0.0)
    hold.observe(nodes(1), {}, 10.0)

    assert not hold.observe(nodes(1), {}, 10.0 + SETTLE_S).ips


@st.composite
def timelines(draw: st.DrawFn) -> list[tuple[float, set[int], set[tuple[int, int]]]]:
    """(seconds since the last look, nodes there, addresses there)."""
    steps = st.tuples(
        st.floats(0.0, 40.0),
        st.sets(st.integers(1, 3)),
        st.sets(st.tuples(st.integers(1, 3), st.integers(2, 12))),
    )
    return draw(st.lists(steps, min_size=1, max_size=8))


def _rows(addresses: Iterable[tuple[int, int]]) -> dict[Prefix, IpEntry]:
    return ips(*(entry(number, last) for number, last in addresses))


@given(timelines())
def test_whatever_happens_etcd_is_believed_and_nothing_is_held_for_ever(
    timeline: list[tuple[float, set[int], set[tuple[int, int]]]],
) -> None:
    hold, now = StaleHold(), 0.0
    for pause, there, addresses in timeline:
        now += pause
        seen = hold.observe(nodes(*there), _rows(addresses), now)
        assert nodes(*there).items() <= seen.nodes.items()
        assert _rows(addresses).items() <= seen.ips.items()
        assert not seen.stale_ips & _rows(addresses).keys()
        assert not seen.stale_nodes & nodes(*there).keys()
        extra = len(seen.ips) > len(addresses) or len(seen.nodes) > len(there)
        assert (seen.look_again is not None) == extra

    looks = 0
    while seen.look_again is not None:
        assert seen.look_again > now
        now, looks = seen.look_again, looks + 1
        seen = hold.observe(nodes(*there), _rows(addresses), now)
        assert looks < 100
    assert (seen.nodes, seen.ips) == (nodes(*there), _rows(addresses))


@given(timelines(), st.floats(0.0, HOLD_S - 1e-6))
def test_what_went_with_its_node_is_there_at_every_moment_before_the_hold_ends(
    timeline: list[tuple[float, set[int], set[tuple[int, int]]]], later: float
) -> None:
    hold, now = StaleHold(), 0.0
    for pause, there, addresses in timeline:
        now += pause
        hold.observe(nodes(*there), _rows(addresses), now)

    seen = hold.observe({}, {}, now)
    held = hold.observe({}, {}, now + later)

    fresh = _rows(addresses).keys() & seen.ips.keys()
    assert fresh <= held.stale_ips
    assert nodes(*there).keys() <= held.stale_nodes
