"""What is wrong right now, as rows for `meshnet status` and `meshnet doctor`.

Level-triggered like everything else: a problem is derived from state each time it is
asked for, so it goes away by itself when its cause does.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import attrs

from meshnet.agent.loop import Loop
from meshnet.agent.seen import Table

MAP_ALARM = 0.8
"""Fill level of a BPF map from which on it is a problem."""
FAILING_AFTER = 3
"""Passes in a row that must fail before a loop's failure is shown."""


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


def of_tables(tables: Iterable[Table[object]]) -> list[Problem]:
    return [
        Problem(
            id="poisoned-key",
            severity=Severity.WARNING,
            message=f"{key} is ignored: {reason}",
            fix="its writer must correct or delete the key; everything else goes on",
        )
        for table in tables
        for key, reason in sorted(table.poisoned.items())
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
