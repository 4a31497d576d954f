"""What the agent says of policies: the list, what a change would change, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from meshnet.agent import views
from meshnet.agent.context import Context
from meshnet.agent.enforcement import (
    GROUP_KIND,
    POLICY_KINDS,
    SERVICE_KINDS,
    named_ports,
    policies_of,
)
from meshnet.errors import InvalidPrefix, NotFound, UsageError
from meshnet.logic.explain import Explanation, explain
from meshnet.logic.peers import NamedPorts, Remote, plain_labels, prefix_remote, reserved_remotes
from meshnet.logic.policy import PolicyTable
from meshnet.logic.policy_set import ALLOW_CLASS, ANYBODY, NO_POLICY, Subject
from meshnet.manifests.kinds import meaning
from meshnet.model.addressing import Address, host_prefix, parse_address
from meshnet.model.identity import CLUSTER_LABEL, ReservedIdentity
from meshnet.model.manifest import Manifest
from meshnet.model.policy import PROTOCOL_NAMES, Direction
from meshnet.model.ruling import PortRow, Verdict

Json = dict[str, Any]
ENTITIES = {
    "world": ReservedIdentity.WORLD,
    "host": ReservedIdentity.HOST,
    "remote-node": ReservedIdentity.REMOTE_NODE,
    "health": ReservedIdentity.HEALTH,
}
KINDS = (*POLICY_KINDS, GROUP_KIND, *SERVICE_KINDS)
_PROTOCOLS = {name: number for number, name in PROTOCOL_NAMES.items()}


def policies(context: Context) -> list[Json]:
    table = context.enforcement.table
    ours = {endpoint.id: endpoint for endpoint in context.endpoints.list()}
    return [
        {
            "kind": each.policy.kind,
            "namespace": each.policy.namespace,
            "name": each.policy.name,
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


# --- why ----------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Party:
    title: str
    remote: Remote
    cluster: str = ""
    node: str = ""
    endpoint_id: int = 0


def why(context: Context, source: str, destination: str, port: str) -> Json:
    """Both ends' answers. Raises NotFound for what is nobody."""
    protocol, number = _port(port)
    sender, receiver = _party(context, source), _party(context, destination)
    path: list[Json] = []
    found: list[tuple[Direction, Explanation]] = []
    for direction, own, other, hook in (
        (Direction.EGRESS, sender, receiver, "from_endpoint"),
        (Direction.INGRESS, receiver, sender, "deliver_local"),
    ):
        if own.cluster != context.view.own:
            if own.cluster:
                decision = f"decided in cluster {own.cluster}: ask there"
                path.append({"hook": hook, "node": own.node, "decision": decision})
            continue
        answer = _explain(context, own, direction, other, protocol, number)
        found.append((direction, answer))
        decision = f"{direction} {_WORDS[answer.verdict]}"
        if answer.verdict is Verdict.AUDIT:
            decision += ", as policy in audit mode would deny it"
        path.append({"hook": hook, "node": own.node, "decision": decision})
    denied = next(((d, a) for d, a in found if a.verdict is Verdict.DENY), None)
    return {
        "source": sender.title,
        "destination": receiver.title,
        "port": port,
        "verdict": "denied" if denied else "allowed",
        "direction": str(denied[0]) if denied else "",
        "rules": [
            {"direction": str(direction), **attrs.asdict(rule)}
            for direction, answer in ([denied] if denied else found)
            for rule in answer.rules
        ],
        "missing": denied[1].missing if denied else "",
        "path": path,
        "seen": [
            row
            for row in context.dataplane.seen_identities()
            if (row["endpoint_id"], row["identity"]) == (receiver.endpoint_id, sender.remote.number)
            and receiver.node == context.local.name
        ],
    }


_WORDS = {Verdict.ALLOW: "allowed", Verdict.DENY: "denied", Verdict.AUDIT: "allowed"}


def _explain(
    context: Context, own: Party, direction: Direction, other: Party, protocol: int, port: int
) -> Explanation:
    table = context.enforcement.table
    subject = Subject(labels=own.remote.labels, ports=own.remote.named_ports)
    return explain(table.policies, table.scope, subject, direction, other.remote, protocol, port)


def _port(text: str) -> tuple[int, int]:
    """`80/tcp`, `8/icmp`."""
    number, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if not number.isdecimal() or int(number) > 65535 or protocol not in _PROTOCOLS:
        raise UsageError(
            f"port {text!r} is not NUMBER/PROTOCOL, such as 80/tcp: {', '.join(_PROTOCOLS)}"
        )
    return _PROTOCOLS[protocol], int(number)


def _party(context: Context, text: str) -> Party:
    """An entity, an address, or [cluster/][namespace/]endpoint."""
    if text in ENTITIES:
        number = int(ENTITIES[text])
        (remote,) = [each for each in reserved_remotes() if each.number == number]
        return Party(title=text, remote=remote)
    rows = views.endpoints(context, "mesh")
    try:
        address = parse_address(text)
    except InvalidPrefix:
        return _named(context, text, rows)
    for row in rows:
        if str(address) in (row["ipv4"], row["ipv6"]):
            return _endpoint(context, row)
    return _address(context, address)


def _address(context: Context, address: Address) -> Party:
    own = context.local
    for node in context.view.nodes():
        if address in (*node.addresses, *node.gateways):
            entity = "host" if node.key == (own.cluster.name, own.name) else "remote-node"
            return attrs.evolve(_party(context, entity), title=f"node {node.name} ({address})")
    return Party(title=f"world ({address})", remote=prefix_remote(0, host_prefix(address)))


def _named(context: Context, text: str, rows: list[Json]) -> Party:
    parts = text.split("/")
    name, namespace = parts[-1], parts[-2] if len(parts) > 1 else "default"
    cluster = parts[0] if len(parts) > 2 else None
    found = [
        row
        for row in rows
        if row["name"] == name
        and row["namespace"] == namespace
        and cluster in (None, row["cluster"])
    ]
    if cluster is None and len(found) > 1:  # the same name in several clusters: ours is meant
        found = [row for row in found if row["cluster"] == context.view.own] or found
    if not found:
        raise NotFound(
            f"{text!r} is no endpoint, address or entity ({', '.join(ENTITIES)}) that is known: "
            "`meshnet endpoint list --all-clusters` shows endpoints"
        )
    return _endpoint(context, found[0])


def _endpoint(context: Context, row: Json) -> Party:
    labels = context.view.labels().get(row["identity"])
    remote = Remote(
        number=row["identity"],
        labels=plain_labels(labels) if labels else {},
        named_ports=_ports_of(context, row),
    )
    return Party(
        title=f"{row['cluster']}/{row['namespace']}/{row['name']}",
        remote=remote,
        cluster=row["cluster"],
        node=row["node"],
        endpoint_id=row["id"],
    )


def _ports_of(context: Context, row: Json) -> NamedPorts:
    view = context.view.clusters.get(row["cluster"])
    for entry in view.ips.values() if view else ():
        if str(entry.prefix.network_address) in (row["ipv4"], row["ipv6"]):
            return named_ports(entry.named_ports)
    return frozenset()


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
    for remote in live.selections.remotes.values():
        if remote.prefix is None:
            table.upsert(remote)
    table.set_policies(*policies_of(map(meaning, ours), context.view.own))
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
