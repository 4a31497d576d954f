"""Which cluster gets how much of a global service's traffic.

    affinity local|remote    Cilium's: the others only when the preferred have no backend
    preference               an order of clusters, used one after the other
    weights                  between clusters of the same place in that order

A cluster is left when its healthy backends fall below the service's minimum, and taken back
only RETURN_MARGIN above it, so that a backend that flaps does not move traffic to and fro;
how much moves in a second is limited by `max_shift_percent`, except away from a cluster that
has no backend at all: nothing waits there.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from meshnet.model.service import Affinity, Sharing

RETURN_MARGIN = 10
"""Percent."""

Shares = dict[str, float]
"""Cluster -> its part of the traffic; they sum to 1, or it is empty."""


@attrs.frozen(kw_only=True)
class Health:
    """Of one cluster's backends for a port."""

    active: int
    total: int

    @property
    def percent(self) -> float:
        return 100 * self.active / self.total if self.total else 0.0


def tiers(sharing: Sharing, own: str, clusters: list[str]) -> list[list[str]]:
    """Clusters in the order of use; those of one tier are used together."""
    if sharing.preference:
        named = [[name] for name in sharing.preference if name in clusters]
        rest = [name for name in clusters if name not in sharing.preference]
        return [*named, rest] if rest else named
    near = [name for name in clusters if name == own]
    far = [name for name in clusters if name != own]
    if sharing.affinity is Affinity.NONE:
        return [clusters] if clusters else []
    ordered = [near, far] if sharing.affinity is Affinity.LOCAL else [far, near]
    return [tier for tier in ordered if tier]


def target(
    sharing: Sharing, own: str, healths: Mapping[str, Health], before: Shares | None = None
) -> Shares:
    """Where the traffic should go, sooner or later.

    `before`: the shares of now, for the hysteresis; None at the beginning.
    """
    usable = sorted(name for name, health in healths.items() if health.active)
    order = tiers(sharing, own, sorted(healths))
    for tier in order:
        well = [name for name in tier if name in usable and _well(sharing, name, healths, before)]
        if shares := _weighed(sharing, well, healths):
            return shares
    for tier in order:  # nobody is above the minimum: whoever answers is better than nobody
        if shares := _weighed(sharing, [name for name in tier if name in usable], healths):
            return shares
    return {}


def _well(
    sharing: Sharing, name: str, healths: Mapping[str, Health], before: Shares | None
) -> bool:
    left = before is not None and not before.get(name)
    # a minimum of 1 % is Cilium's "while there is one", where there is nothing to flap about
    margin = RETURN_MARGIN if left and sharing.min_healthy_percent > 1 else 0
    return healths[name].percent >= min(100, sharing.min_healthy_percent + margin)


def _weighed(sharing: Sharing, names: list[str], healths: Mapping[str, Health]) -> Shares:
    """Every backend counts the same, times its cluster's weight."""
    parts = {name: sharing.weights.get(name, 1) * healths[name].active for name in names}
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items() if part} if total else {}


def approach(now: Shares, wanted: Shares, step: float, usable: set[str]) -> Shares:
    """`wanted`, or as near to it as moving `step` (a part of 1) of the traffic leads.

    `usable`: clusters with an active backend; what the others still have moves at once.
    """
    if not now or not wanted:
        return wanted
    lost = sum(part for name, part in now.items() if name not in usable)
    kept = {name: part for name, part in now.items() if name in usable}
    gains = {name: max(0.0, part - kept.get(name, 0.0)) for name, part in wanted.items()}
    losses = {name: max(0.0, part - wanted.get(name, 0.0)) for name, part in kept.items()}
    gain, loss = sum(gains.values()), sum(losses.values())
    moved = lost + min(step, loss)
    shares = dict(kept)
    for name, part in gains.items():
        shares[name] = shares.get(name, 0.0) + (moved * part / gain if gain else 0.0)
    for name, part in losses.items():
        shares[name] -= min(step, loss) * part / loss if loss else 0.0
    near = all(abs(shares.get(n, 0.0) - wanted.get(n, 0.0)) < 1e-6 for n in {*shares, *wanted})
    return wanted if near else {name: part for name, part in shares.items() if part > 1e-9}
