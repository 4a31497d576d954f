"""When may a change of CAs go on? When everybody whom the next step could hurt has followed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

import attrs

from meshnet.model.authority import Phase, ToldRemote, TrustReport, TrustState


@attrs.frozen(kw_only=True)
class Followers:
    """Whom a change of CAs concerns, and how far each has come."""

    live: frozenset[str]
    """Nodes with a lease."""
    away: frozenset[str] = frozenset()
    """Nodes that hold PodCIDRs and no lease: they may come back."""
    reports: Mapping[str, TrustReport] = attrs.field(factory=dict)
    remotes: frozenset[str] = frozenset()
    """Clusters that read us by what they pinned."""
    told: Mapping[str, ToldRemote] = attrs.field(factory=dict)


def waiting_for(
    state: TrustState, followers: Followers, *, now: datetime, patience: timedelta
) -> tuple[str, ...]:
    """Why the next step must wait, in words; empty when it may be taken.

    Args:
        patience: one certificate lifetime. Who is away for longer has to join again in any
            case, so it is waited for no longer than that.
    """
    if state.phase is Phase.STABLE:
        return ()
    reasons = list(_nodes(state, followers))
    if now < state.since + patience:
        reasons += [f"node {name}: it is away" for name in sorted(followers.away)]
        if state.phase is Phase.ANNOUNCE:
            reasons += _remotes(state, followers)
    return tuple(reasons)


def _nodes(state: TrustState, followers: Followers) -> Iterator[str]:
    for name in sorted(followers.live):
        report = followers.reports.get(name)
        if report is None or report.epoch < state.epoch:
            yield f"node {name}: it does not trust the new CAs yet"
        elif state.phase is Phase.ANNOUNCE and report.signer and report.keys < _authorities(state):
            yield f"signer {name}: it does not hold the new keys yet"
        elif state.phase is Phase.SIGN and not report.renewed:
            yield f"node {name}: it has certificates of the old CAs still"


def _authorities(state: TrustState) -> int:
    return len(state.node_cas) + len(state.mesh_cas)


def _remotes(state: TrustState, followers: Followers) -> Iterable[str]:
    for name in sorted(followers.remotes):
        told = followers.told.get(name)
        if told is None or told.epoch < state.epoch:
            yield f"cluster {name}: it has not asked for the new CAs yet"
