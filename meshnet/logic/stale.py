"""Which rows outlive their keys, and how long. Pure: time is a parameter.

etcd expires leases when it thaws from a freeze, so a key that is gone does not prove that
its endpoint is. A row is *announced* gone when its node is still there to have said so: it
goes after a short settle time, for the keys of a node and of its addresses come by separate
watches. A row whose node went too is held as stale, for `hold_s` or as long as the node
still answers the path probe. A large part of a cluster that goes at once is held as well,
announced or not. What comes back within the hold is fresh again.

A node's own row is always held: nobody can tell its crash from its leaving.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Generic, TypeVar

import attrs

from meshnet.model.addressing import Prefix
from meshnet.model.endpoint import IpEntry
from meshnet.model.node import Node

HOLD_S = 30.0
SETTLE_S = 0.3
PROBE_S = 1.0
"""How soon to look again at a row that only the path probe keeps."""
MASS_SHARE = 0.1
MASS_FLOOR = 16
"""Rows. Below it, a tenth of a cluster is just an endpoint or two that ended."""

K = TypeVar("K")
V = TypeVar("V")


@attrs.frozen
class Held(Generic[V]):
    """A row without its key."""

    value: V
    since: float
    stale: bool
    """False: it may be an announced end, which the settle time will tell."""


@attrs.frozen(kw_only=True)
class Effective:
    """What is true for packets and lists."""

    nodes: dict[str, Node]
    """By name."""
    ips: dict[Prefix, IpEntry]
    stale_nodes: frozenset[str]
    stale_ips: frozenset[Prefix]
    look_again: float | None
    """When to observe again if etcd says nothing new; None: nothing is held."""


class StaleHold:
    """The hold over one cluster. Dropping the object drops the cluster's rows at once.

    Cost of `observe`: linear in the rows of the cluster.
    """

    def __init__(
        self,
        *,
        hold_s: float = HOLD_S,
        settle_s: float = SETTLE_S,
        mass_share: float = MASS_SHARE,
        mass_floor: int = MASS_FLOOR,
    ) -> None:
        self._hold_s = hold_s
        self._settle_s = settle_s
        self._mass_share = mass_share
        self._mass_floor = mass_floor
        self._nodes: dict[str, Node] = {}
        self._ips: dict[Prefix, IpEntry] = {}
        self._held_nodes: dict[str, Held[Node]] = {}
        self._held_ips: dict[Prefix, Held[IpEntry]] = {}

    def observe(
        self,
        nodes: Mapping[str, Node],
        ips: Mapping[Prefix, IpEntry],
        now: float,
        *,
        answering: Collection[str] = (),
    ) -> Effective:
        """What holds, now that etcd says `nodes` and `ips`.

        Args:
            now: seconds on a clock that never goes back.
            answering: names of nodes that answered the latest path probe.
        """
        _hold_missing(self._held_nodes, self._nodes, nodes, now, stale=True)
        _hold_missing(self._held_ips, self._ips, ips, now, stale=False)
        self._nodes, self._ips = dict(nodes), dict(ips)
        self._judge(now)
        self._release(now, answering)
        return Effective(
            nodes=self._nodes | {name: held.value for name, held in self._held_nodes.items()},
            ips=self._ips | {prefix: held.value for prefix, held in self._held_ips.items()},
            stale_nodes=frozenset(self._held_nodes),
            stale_ips=frozenset(prefix for prefix, held in self._held_ips.items() if held.stale),
            look_again=self._look_again(now),
        )

    def _judge(self, now: float) -> None:
        """Mark stale what went unannounced, or together with too much else."""
        present = {address for node in self._nodes.values() for address in node.addresses}
        mass = self._is_mass(now)
        for prefix, held in self._held_ips.items():
            node_went = held.value.host is not None and held.value.host not in present
            if not held.stale and (node_went or mass):
                self._held_ips[prefix] = attrs.evolve(held, stale=True)

    def _is_mass(self, now: float) -> bool:
        """Whether too much went within one settle time for it to be believed at once."""
        going = sum(now - held.since <= self._settle_s for held in self._held_ips.values())
        before = len(self._ips) + going
        return going >= self._mass_floor and going > before * self._mass_share

    def _release(self, now: float, answering: Collection[str]) -> None:
        """Let go what is due and not kept by the path probe."""
        kept = {name for name in self._held_nodes if name in answering}
        reachable = {address for name in kept for address in self._held_nodes[name].value.addresses}
        for prefix, held in list(self._held_ips.items()):
            if now >= self._due(held) and not (held.stale and held.value.host in reachable):
                del self._held_ips[prefix]
        for name, node in list(self._held_nodes.items()):
            if now >= self._due(node) and name not in kept:
                del self._held_nodes[name]

    def _due(self, held: Held[V]) -> float:
        return held.since + (self._hold_s if held.stale else self._settle_s)

    def _look_again(self, now: float) -> float | None:
        dues = [self._due(node) for node in self._held_nodes.values()]
        dues += [self._due(held) for held in self._held_ips.values()]
        # What is due already and still here is kept by the path probe: ask that again soon.
        return min((due if due > now else now + PROBE_S for due in dues), default=None)


def _hold_missing(
    held: dict[K, Held[V]], before: Mapping[K, V], after: Mapping[K, V], now: float, *, stale: bool
) -> None:
    """Start to hold what is no longer there; let go what is there again."""
    for key in before.keys() - after.keys():
        held[key] = Held(before[key], now, stale)
    for key in held.keys() & after.keys():
        del held[key]
