"""A change of CAs goes on when nobody would be shut out by the next step, and not before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from meshnet.logic.rollover import Followers, waiting_for
from meshnet.model.authority import Phase, ToldRemote, TrustReport, TrustState

NOON = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
WEEK = timedelta(days=7)
STATE = TrustState(
    epoch=4, phase=Phase.ANNOUNCE, node_cas=("old", "new"), mesh_cas=("old", "new"), since=NOON
)
DONE = TrustReport(epoch=4, renewed=True)
SIGNER = TrustReport(epoch=4, renewed=True, signer="192.0.2.1:4244", keys=4)
ALL = Followers(
    live=frozenset({"n1", "n2"}),
    reports={"n1": SIGNER, "n2": DONE},
    remotes=frozenset({"west"}),
    told={"west": ToldRemote(epoch=4)},
)


def reasons(
    followers: Followers = ALL, *, phase: Phase = Phase.ANNOUNCE, after: timedelta = timedelta()
) -> tuple[str, ...]:
    state = attrs.evolve(STATE, phase=phase)
    return waiting_for(state, followers, now=NOON + after, patience=WEEK)


def with_report(name: str, report: TrustReport | None) -> Followers:
    reports = (
        {**ALL.reports, name: report}
        if report
        else {other: kept for other, kept in ALL.reports.items() if other != name}
    )
    return attrs.evolve(ALL, reports=reports)


@pytest.mark.parametrize("phase", list(Phase))
def test_who_has_all_followed_is_waited_for_no_more(phase: Phase) -> None:
    assert reasons(phase=phase) == ()


@pytest.mark.parametrize(
    ("followers", "phase", "reason"),
    [
        (with_report("n2", None), Phase.ANNOUNCE, "node n2: it does not trust the new CAs yet"),
        (
            with_report("n2", attrs.evolve(DONE, epoch=3)),
            Phase.SIGN,
            "node n2: it does not trust the new CAs yet",
        ),
        (
            with_report("n1", attrs.evolve(SIGNER, keys=2)),
            Phase.ANNOUNCE,
            "signer n1: it does not hold the new keys yet",
        ),
        (
            with_report("n2", attrs.evolve(DONE, renewed=False)),
            Phase.SIGN,
            "node n2: it has certificates of the old CAs still",
        ),
        (
            attrs.evolve(ALL, told={}),
            Phase.ANNOUNCE,
            "cluster west: it has not asked for the new CAs yet",
        ),
        (attrs.evolve(ALL, away=frozenset({"n3"})), Phase.SIGN, "node n3: it is away"),
    ],
)
def test_who_would_be_shut_out_is_named(followers: Followers, phase: Phase, reason: str) -> None:
    assert reasons(followers, phase=phase) == (reason,)


def test_certificates_of_the_old_cas_matter_only_before_these_end() -> None:
    waiting = with_report("n2", attrs.evolve(DONE, renewed=False))

    assert reasons(waiting, phase=Phase.ANNOUNCE) == ()


def test_who_is_away_for_a_whole_lifetime_is_waited_for_no_longer_but_the_living_are() -> None:
    followers = attrs.evolve(with_report("n2", None), away=frozenset({"n3"}), told={})

    assert reasons(followers, after=WEEK) == ("node n2: it does not trust the new CAs yet",)
