"""Do two sides of a join fit together? Each reason why not, in an operator's words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.logic.agreement import MAX_SKEW_S, compare, families_of
from meshnet.model.ability import Abilities
from meshnet.model.addressing import parse_address
from meshnet.model.node import Node

NOON = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
OURS = Abilities(accepts=("vxlan", "geneve"), families=(4, 6), now=NOON)
OTHER = "cluster 'west'"


def faults(theirs: Abilities, ours: Abilities = OURS) -> dict[str, tuple[str, str]]:
    checks = compare(ours, theirs, OTHER)
    return {check.check: (check.evidence, check.fix) for check in checks if not check.ok}


def test_two_of_a_kind_agree_and_say_in_what() -> None:
    evidence = {check.check: check.evidence for check in compare(OURS, OURS, OTHER)}

    assert evidence == {
        "clock": "the clock of cluster 'west' is 0.0 s ahead",
        "protocol": "both speak 1",
        "tunnel-protocol": "we send vxlan, cluster 'west' sends vxlan: each takes the other's",
        "families": "both underlays have IPv4 and IPv6",
        "identities": "maxConnectedClusters is 255 on both sides",
    }


@pytest.mark.parametrize(
    ("theirs", "check", "evidence"),
    [
        (
            attrs.evolve(OURS, now=NOON - timedelta(seconds=150)),
            "clock",
            "the clock of cluster 'west' is 150.0 s behind, more than 120 s",
        ),
        (
            attrs.evolve(OURS, protocol=2),
            "protocol",
            "we speak enrolment protocol 1, cluster 'west' speaks 2",
        ),
        (
            attrs.evolve(OURS, accepts=("geneve",)),
            "tunnel-protocol",
            "we send vxlan, cluster 'west' takes geneve only",
        ),
        (
            attrs.evolve(OURS, tunnel="wireguard"),
            "tunnel-protocol",
            "cluster 'west' sends wireguard, we take vxlan, geneve only",
        ),
        (
            attrs.evolve(OURS, families=()),
            "families",
            "cluster 'west' has no IP version of which every node has an underlay address",
        ),
        (
            attrs.evolve(OURS, max_connected_clusters=511),
            "identities",
            "maxConnectedClusters is 255 here and 511 in cluster 'west': identities would be cut "
            "into cluster and number differently",
        ),
    ],
)
def test_disagreement_is_one_fault_with_a_fix(theirs: Abilities, check: str, evidence: str) -> None:
    found = faults(theirs)

    assert list(found) == [check]
    assert found[check][0] == evidence
    assert found[check][1]


def test_underlays_without_a_common_ip_version_do_not_meet() -> None:
    four, six = attrs.evolve(OURS, families=(4,)), attrs.evolve(OURS, families=(6,))

    assert faults(six, four)["families"][0] == (
        "our underlay has IPv4, that of cluster 'west' IPv6"
    )


def test_side_that_says_nothing_of_itself_is_not_refused_for_it() -> None:
    assert faults(Abilities()) == {}


@given(st.floats(min_value=-1e6, max_value=1e6))
def test_skew_is_judged_alike_from_both_sides(seconds: float) -> None:
    theirs = attrs.evolve(OURS, now=NOON + timedelta(seconds=seconds))

    assert ("clock" in faults(theirs)) == ("clock" in faults(OURS, theirs))
    if abs(seconds) < MAX_SKEW_S - 1:
        assert "clock" not in faults(theirs)


def test_family_of_a_cluster_is_what_all_its_nodes_have() -> None:
    both = tuple(map(parse_address, ("192.0.2.1", "2001:db8::1")))
    nodes = [
        Node(name="n1", cluster="east", cluster_id=1, addresses=both),
        Node(name="n2", cluster="east", cluster_id=1, addresses=both[:1]),
    ]

    assert families_of(nodes) == (4,)
    assert families_of(nodes[:1]) == (4, 6)
    assert families_of([]) == ()
