"""What the agent says of policies: the list, and what a change would change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshnet.agent.context import Context
from meshnet.agent.enforcement import (
    GROUP_KIND,
    POLICY_KINDS,
    SERVICE_KINDS,
    meaning_of,
    policies_of,
)
from meshnet.logic.policy import PolicyTable
from meshnet.logic.policy_set import ALLOW_CLASS, ANYBODY, NO_POLICY, Subject
from meshnet.model.identity import CLUSTER_LABEL
from meshnet.model.manifest import Manifest
from meshnet.model.policy import PROTOCOL_NAMES, Direction
from meshnet.model.ruling import PortRow, Verdict

Json = dict[str, Any]
KINDS = (*POLICY_KINDS, GROUP_KIND, *SERVICE_KINDS)


def policies(context: Context) -> list[Json]:
    table = context.enforcement.table
    ours = {endpoint.id: endpoint for endpoint in context.endpoints.list()}
    return [
        {
            "kind": each.policy.kind,
            "namespace": each.policy.namespace,
            "name": each.policy.name,
            "origin": each.policy.origin or context.view.own,
            "audit": each.policy.audit,
            "default_deny": sorted(each.policy.default_deny),
            "rules": len(each.rules),
            "endpoints": sorted(
                f"{ours[number].namespace}/{ours[number].name}"
                for number, policy_id in table.assignments.items()
                if number in ours
                and policy_id != NO_POLICY
                and each in table.sets[policy_id].members
            ),
        }
        for each in table.policies
    ]


# --- plan ---------------------------------------------------------------------------------------


def plan(context: Context, manifests: Iterable[Manifest]) -> list[Json]:
    """Whom these manifests would treat otherwise, of all endpoints of this cluster."""
    stored = {m.key: m for m in context.view.tables.manifests.items.values()}
    after = stored | {manifest.key: manifest for manifest in manifests}
    old = _table(context, stored.values())
    new = _table(context, after.values())
    titles = {i.number: str(i.labels) for i in context.view.identities()}
    found = []
    for subject in sorted(old.assignments):
        for direction in Direction:
            for remote in sorted(_remotes(old, subject) | _remotes(new, subject)):
                before = _allowed(old, subject, direction, remote)
                now = _allowed(new, subject, direction, remote)
                if before != now:
                    found.append(
                        {
                            "identity": subject,
                            "labels": titles.get(subject, ""),
                            "direction": str(direction),
                            "remote": "everybody else" if remote == ANYBODY else remote,
                            "remote_labels": titles.get(remote, ""),
                            "before": before,
                            "after": now,
                        }
                    )
    return found


def _table(context: Context, manifests: Iterable[Manifest]) -> PolicyTable:
    """As if these were applied: every identity of this cluster is a subject, by its number."""
    live = context.enforcement.table
    table = PolicyTable(live.scope)
    ours = sorted((m for m in manifests if m.key.kind in KINDS), key=lambda each: each.key)
    said = [("", manifest) for manifest in ours]
    said += [(each.origin, each.manifest) for each in context.view.asked_by_others().values()]
    for remote in live.selections.remotes.values():
        if remote.prefix is None:
            table.upsert(remote)
    table.set_policies(*policies_of((meaning_of(*each) for each in said), context.view.own))
    table.set_subjects(
        {
            remote.number: Subject(labels=remote.labels, ports=remote.named_ports)
            for remote in live.selections.remotes.values()
            if remote.labels.get(CLUSTER_LABEL) == context.view.own
        }
    )
    return table


def _remotes(table: PolicyTable, subject: int) -> set[int]:
    made = table.sets.get(table.assignments[subject])
    numbers = {remote for _, remote in made.rows} if made else set()
    named = {number for number in numbers if number in table.selections.remotes}
    return {ANYBODY} | {n for n in named if table.selections.remotes[n].prefix is None}


def _allowed(table: PolicyTable, subject: int, direction: Direction, remote: int) -> list[str]:
    """What passes, in words; `everything` without a policy."""
    made = table.sets.get(table.assignments[subject])
    if made is None:
        return ["everything"]
    number = made.rows.get((direction, remote), made.rows[direction, ANYBODY])
    if number == ALLOW_CLASS:
        return ["everything"]
    return [_words(row) for row in table.rows_of(number)] or ["nothing"]


def _words(row: PortRow) -> str:
    verdict = row.verdict.name.lower()
    if row.length == 32:
        return "everything" if row.verdict is Verdict.ALLOW else f"{verdict} everything"
    protocol = PROTOCOL_NAMES.get(row.protocol, str(row.protocol))
    if row.length == 40:
        return f"{verdict} {protocol}"
    last = row.port + (1 << (64 - row.length)) - 1
    ports = str(row.port) if last == row.port else f"{row.port}-{last}"
    return f"{verdict} {ports}/{protocol}"
