"""What is wrong right now, as rows for `meshnet status` and `meshnet doctor`.

Level-triggered like everything else: a problem is derived from state each time it is
asked for, so it goes away by itself when its cause does.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import attrs

from meshnet.agent.loop import Loop
from meshnet.agent.seen import Table
from meshnet.model.addressing import IPV6_MTU_LEAST
from meshnet.model.dataplane import MapUsage
from meshnet.model.remote import MirrorStatus

MAP_ALARM = 0.8
"""Fill level of a BPF map from which on it is a problem."""
OF_FIXED_SIZE = ("counters", "drops", "events")
"""Maps that nothing can be refused by: a row a reason, or the newest records."""
FILLS_BY_DESIGN = ("seen_identities", "fragments", "service_affinity", "socket_peers")
"""Nobody takes a row out of these but the kernel, for a newer one: they rest at full."""
_REFUSED = "when it is full new rows are refused: have fewer endpoints, nodes or clusters"
_WHEN_FULL = {
    "conntrack": "when it is full the flows that were quiet longest are forgotten: set "
    "conntrack_entries higher in meshnet.toml and restart the agent",
}
FAILING_AFTER = 3
"""Passes in a row that must fail before a loop's failure is shown."""
POISONED_SHOWN = 20
"""How many bad keys are named; the log has them all."""


class Severity(enum.StrEnum):
    WARNING = "warning"
    """Something is degraded; packets flow."""
    ERROR = "error"
    """An operator must act."""


@attrs.frozen(kw_only=True)
class Problem:
    id: str
    severity: Severity
    message: str
    fix: str


def of_paths(path_mtus: Mapping[str, tuple[int, int]]) -> list[Problem]:
    """`path_mtus`: of each peer, the path's MTU and what of it an IPv6 packet could have."""
    return [
        Problem(
            id="narrow-path",
            severity=Severity.WARNING,
            message=f"the path to {peer} takes {mtu} bytes: {room} for an endpoint's packet",
            fix=f"IPv6 needs {IPV6_MTU_LEAST} (RFC 8200), and larger packets than {room} bytes "
            "are lost: find the narrow hop, or use native routing or IPv4",
        )
        for peer, (mtu, room) in sorted(path_mtus.items())
        if room < IPV6_MTU_LEAST
    ]


def of_tables(tables: Iterable[Table[Any]]) -> list[Problem]:
    return [
        Problem(
            id="poisoned-key",
            severity=Severity.WARNING,
            message=f"{key} is ignored: {reason}",
            fix="its writer must correct or delete the key; everything else goes on",
        )
        for key, reason in islice(
            (found for table in tables for found in sorted(table.poisoned.items())), POISONED_SHOWN
        )
    ]


def of_maps(usage: Iterable[MapUsage]) -> list[Problem]:
    return [
        Problem(
            id="map-full",
            severity=Severity.WARNING,
            message=f"BPF map {row.name} has {row.entries} of at most {row.max_entries} entries",
            fix=_WHEN_FULL.get(row.name, _REFUSED),
        )
        for row in usage
        if row.name not in (*OF_FIXED_SIZE, *FILLS_BY_DESIGN)
        and row.entries >= row.max_entries * MAP_ALARM
    ]


def of_remotes(reports: Iterable[MirrorStatus]) -> list[Problem]:
    """What the leader's mirrors refuse to believe."""
    return [
        Problem(
            id="refused-key",
            severity=Severity.WARNING,
            message=f"{refusal.key} of cluster {report.name} is not believed: {refusal.reason}",
            fix=f"cluster {report.name} must correct it; everything else of it goes on",
        )
        for report in reports
        for refusal in report.refusals
    ]


def of_ownership(lost: str | None) -> list[Problem]:
    if lost is None:
        return []
    return [
        Problem(
            id="pod-cidr-lost",
            severity=Severity.ERROR,
            message=f"{lost}: this node hands out no more addresses",
            fix="run `meshnet cluster leave` here and join again",
        )
    ]


def of_underlay(fault: str | None) -> list[Problem]:
    if fault is None:
        return []
    return [
        Problem(
            id="underlay-changed",
            severity=Severity.ERROR,
            message=fault,
            fix="give the interface its address back: the agent goes on by itself",
        )
    ]


def of_loops(loops: Iterable[Loop]) -> list[Problem]:
    return [
        Problem(
            id=f"loop-{loop.name}",
            severity=Severity.ERROR,
            message=f"{loop.name} failed {loop.status.failures} times: {loop.status.error}",
            fix="it is retried; the agent's log has each failure",
        )
        for loop in loops
        if loop.status.failures >= FAILING_AFTER
    ]


def of_resolver(error: str | None) -> list[Problem]:
    if error is None:
        return []
    return [
        Problem(
            id="resolver-down",
            severity=Severity.WARNING,
            message=f"names of services are not answered here: {error}",
            fix="let whoever listens on all addresses of port 53 listen on its own alone; "
            "endpoints started until then use the machine's resolvers",
        )
    ]


def of_etcd(connected: bool, error: str | None) -> list[Problem]:
    if connected:
        return []
    return [
        Problem(
            id="etcd-unreachable",
            severity=Severity.ERROR,
            message=f"etcd does not answer ({error or 'not yet asked'}); packets go on",
            fix="start etcd on the node that runs it, or check the network between them",
        )
    ]
