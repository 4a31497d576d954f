"""The resolver against the naive evaluator, in random worlds, built whole and change by change."""

from __future__ import annotations

import os

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshnet.logic.peers import Scope, reserved_remotes
from meshnet.logic.policy import PolicyTable
from meshnet.logic.policy_set import ALLOW_CLASS, ANYBODY, NO_POLICY, Subject
from meshnet.logic.port_rows import ruling_of
from meshnet.model.dataplane import PolicyKey
from meshnet.model.policy import Direction, Named, Policy
from meshnet.model.ruling import PortRow, Verdict
from tests.support import naive_policy
from tests.support.naive_policy import Party
from tests.support.policy_worlds import (
    ADDRESSES,
    PROBES,
    endpoints,
    named,
    names,
    number_of,
    policies,
    remote_of,
    reserved,
)

WORDS = {Verdict.ALLOW: "allow", Verdict.DENY: "deny", Verdict.AUDIT: "audit"}
FIRST_IDENTITY = 65536 + 256


class Maps:
    """The two maps, written by the deltas of a table and by nothing else."""

    def __init__(self, table: PolicyTable) -> None:
        self.table = table
        self.rows: dict[PolicyKey, int] = {}
        self.classes: dict[int, tuple[PortRow, ...]] = {}

    def write(self) -> None:
        for _ in range(2):  # the second time: what retiring prefixes leave
            delta = self.table.pending
            self.classes |= delta.classes
            self.rows |= delta.rows
            assert all(chosen in self.classes or chosen == ALLOW_CLASS
                       for chosen in delta.rows.values())  # fmt: skip
            for key in delta.gone_rows:
                self.rows.pop(key, None)
            for number in delta.gone_classes:
                del self.classes[number]
            self.table.written()
            self.table.retire()

    def verdict(
        self, endpoint: int, direction: Direction, remote: int, proto: int, port: int
    ) -> str:
        policy = self.table.assignments[endpoint]
        if policy == NO_POLICY:
            return "allow"
        chosen = self.rows.get(
            PolicyKey(policy, direction, remote), self.rows[PolicyKey(policy, direction, ANYBODY)]
        )
        if chosen == ALLOW_CLASS:
            return "allow"
        return WORDS[ruling_of(self.classes[chosen], proto, port).verdict]


def fresh(local_only: bool) -> Maps:
    table = PolicyTable(Scope(cluster="east", local_only=local_only))
    for remote in reserved_remotes():
        table.upsert(remote)
    return Maps(table)


def check(
    maps: Maps,
    world: list[Policy],
    known: Named,
    parties: list[Party],
    numbers: dict[int, int],
    *,
    local_only: bool,
) -> None:
    world_parties = [Party(address=address) for address in ADDRESSES]
    for index, endpoint in enumerate(parties):
        for peer in (*parties, *reserved(), *world_parties):
            remote = number_of(maps.table, peer, numbers)
            for direction in Direction:
                for protocol, port in PROBES:
                    expected = naive_policy.verdict(
                        world, known, direction, endpoint, peer, protocol, port,
                        local_only=local_only,
                    )  # fmt: skip
                    found = maps.verdict(index, direction, remote, protocol, port)
                    assert found == expected, (direction, endpoint, peer, protocol, port)


def load(maps: Maps, parties: list[Party]) -> dict[int, int]:
    numbers: dict[int, int] = {}
    by_labels: dict[str, int] = {}
    ports: dict[int, set[tuple[str, int, int]]] = {}
    for party in parties:  # the same labels are the same identity, with the ports of all
        number = by_labels.setdefault(str(sorted(party.labels.items())),
                                      FIRST_IDENTITY + len(by_labels))  # fmt: skip
        numbers[id(party)] = number
        ports.setdefault(number, set()).update(named(party.ports))
    for party in parties:
        remote = remote_of(numbers[id(party)], party)
        remote = attrs.evolve(remote, named_ports=frozenset(ports[remote.number]))
        maps.table.upsert(remote)
    maps.table.set_subjects(
        {i: Subject(labels=p.labels, ports=named(p.ports)) for i, p in enumerate(parties)}
    )
    return numbers


distinct = st.lists(
    endpoints, min_size=1, max_size=3, unique_by=lambda p: str(sorted(p.labels.items()))
)
WORLDS = int(os.environ.get("MESHNET_POLICY_WORLDS", "60"))
"""Random worlds a test; thousands were run with it set."""
quick = settings(max_examples=WORLDS, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(policies(), names, distinct, st.booleans())
def test_rows_say_what_the_rules_say(
    world: list[Policy], known: Named, parties: list[Party], local_only: bool
) -> None:
    maps = fresh(local_only)
    maps.table.set_policies(world, known)
    numbers = load(maps, parties)
    maps.write()
    check(maps, world, known, parties, numbers, local_only=local_only)


@quick
@given(policies(), policies(), names, names, distinct, distinct)
def test_changes_lead_to_what_a_fresh_start_leads_to(
    before: list[Policy],
    after: list[Policy],
    known_before: Named,
    known: Named,
    others: list[Party],
    parties: list[Party],
) -> None:
    """Other endpoints, other policies, then these; written in between and at the end."""
    maps = fresh(local_only=True)
    maps.table.set_policies(before, known_before)
    load(maps, others)
    maps.write()
    for number in list(maps.table.selections.remotes):
        if FIRST_IDENTITY <= number < 1 << 24:
            maps.table.remove(number)
    numbers = load(maps, parties)
    maps.table.set_policies(after, known)
    maps.write()
    check(maps, after, known, parties, numbers, local_only=True)
    again = fresh(local_only=True)
    again.table.set_policies(after, known)
    load(again, parties)
    again.write()
    assert len(again.rows) == len(maps.rows), "nothing is left over"
    assert len(again.classes) == len(maps.classes)


@quick
@given(policies(), names, distinct)
def test_without_policies_nothing_is_left(
    world: list[Policy], known: Named, parties: list[Party]
) -> None:
    maps = fresh(local_only=True)
    maps.table.set_policies(world, known)
    load(maps, parties)
    maps.write()
    maps.table.set_policies([], Named())
    maps.write()
    assert (maps.rows, maps.classes, maps.table.prefixes) == ({}, {}, {})
    assert set(maps.table.assignments.values()) <= {NO_POLICY}
    assert maps.table.selections.selected == {}


@quick
@given(policies(), names, distinct)
def test_what_other_clusters_ask_for_closes_and_never_opens(
    world: list[Policy], known: Named, parties: list[Party]
) -> None:
    """Endpoint by endpoint, everybody: DENY stays DENY, AUDIT never becomes ALLOW."""
    severity = ["allow", "audit", "deny"]
    ours, all_of_them = fresh(local_only=True), fresh(local_only=True)
    ours.table.set_policies([p for p in world if not p.origin], known)
    all_of_them.table.set_policies(world, known)
    for maps in (ours, all_of_them):
        numbers = load(maps, parties)
        maps.write()
    for index in range(len(parties)):
        for peer in (*parties, *reserved(), *(Party(address=address) for address in ADDRESSES)):
            for direction in Direction:
                for protocol, port in PROBES:
                    alone, together = (
                        maps.verdict(
                            index,
                            direction,
                            number_of(maps.table, peer, numbers),
                            protocol,
                            port,
                        )
                        for maps in (ours, all_of_them)
                    )
                    assert severity.index(together) >= severity.index(alone)
