"""Keeps the policy maps, and each endpoint's policy id, equal to what manifests say.

Owns `policy`, `policy_classes` and the policy fields of the endpoint rows. Order makes that
no endpoint is open or closed by mistake for a moment: new classes and rows, then the
endpoints' policy ids, then (forwarding) the ipcache rows of prefixes and identities, and at
last, by `sweep`, what nothing points to any more. A restarted agent takes other numbers than
those it finds, and removes what it found when its own is in place.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

import attrs
import structlog

from meshnet.agent.local import LocalNode
from meshnet.agent.mesh_view import MeshView
from meshnet.dataplane.api import Dataplane
from meshnet.logic.peers import (
    FIRST_PREFIX_NUMBER,
    NamedPorts,
    Remote,
    Scope,
    plain_labels,
    reserved_remotes,
)
from meshnet.logic.policy import PolicyTable
from meshnet.logic.policy_services import name_services, policy_services
from meshnet.logic.policy_set import ALLOW_CLASS, NO_POLICY, Subject, Title
from meshnet.manifests.kinds import meaning
from meshnet.model.addressing import Prefix
from meshnet.model.dataplane import EndpointRow, PolicyKey
from meshnet.model.endpoint import Endpoint
from meshnet.model.identity import LabelSet
from meshnet.model.manifest import Manifest
from meshnet.model.policy import PROTOCOLS, CidrGroup, Named, Policy
from meshnet.model.service import EndpointSlice, Service

GROUP_KIND = "CiliumCIDRGroup"
POLICY_KINDS = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
SERVICE_KINDS = ("Service", "EndpointSlice")
"""Read only while a policy names services."""


@attrs.frozen
class EndpointPolicy:
    """The policy fields of an endpoint's row."""

    policy_id: int = NO_POLICY
    epoch: int = 0
    audit: bool = False


class Enforcement:
    def __init__(self, local: LocalNode, view: MeshView, dataplane: Dataplane) -> None:
        self._local = local
        self._view = view
        self._dataplane = dataplane
        rows = dataplane.endpoints().values()
        self._left = set(dataplane.policy()), dataplane.policy_classes()
        """Rows and classes of an earlier agent."""
        numbers = [key.policy_id for key in self._left[0]] + [row.policy_id for row in rows]
        prefixes = [k.remote - FIRST_PREFIX_NUMBER for k in self._left[0]]
        used = max([*numbers, *prefixes, *self._left[1]], default=ALLOW_CLASS)
        self.table = PolicyTable(
            Scope(cluster=local.cluster.name, local_only=local.cluster.policy_default_local),
            first=used + 1,
        )
        self._epoch = max((row.policy_epoch for row in rows), default=0)
        self._kept = {
            row.endpoint_id: EndpointPolicy(row.policy_id, row.policy_epoch, row.audit)
            for row in rows
        }
        """What each endpoint's row says, by endpoint id."""
        self._subjects: dict[int, tuple[Endpoint, LabelSet]] = {}
        self._meanings: dict[str, tuple[Manifest, Any]] = {}
        self._labels: dict[int, tuple[LabelSet, NamedPorts]] = {}
        self._gone: tuple[set[PolicyKey], set[int]] = (set(), set())
        self._learned = asyncio.Event()
        self._log = structlog.get_logger(reconciler="policy")
        for remote in reserved_remotes():
            self.table.upsert(remote)

    # --- endpoints ---------------------------------------------------------------------------

    def know(self, endpoint: Endpoint, labels: LabelSet) -> None:
        """An endpoint that is here already: its row stays until the first pass."""
        self._subjects[endpoint.id] = (endpoint, labels)

    async def admit(self, endpoint: Endpoint, labels: LabelSet) -> None:
        """Before its row is written: its rules are in the maps when this answers."""
        await self._learned.wait()
        self._subjects[endpoint.id] = (endpoint, labels)
        self.reconcile()

    def forget(self, endpoint: Endpoint) -> None:
        self._subjects.pop(endpoint.id, None)
        self._kept.pop(endpoint.id, None)

    def policed(self, row: EndpointRow) -> EndpointRow:
        """The row with its endpoint's policy."""
        policy = self._kept.get(row.endpoint_id, EndpointPolicy())
        return attrs.evolve(
            row, policy_id=policy.policy_id, policy_epoch=policy.epoch, audit=policy.audit
        )

    @property
    def prefixes(self) -> dict[Prefix, int]:
        """What needs a row in the ipcache, with its number."""
        return self.table.prefixes

    @property
    def rules(self) -> dict[int, Title]:
        return self.table.rules

    # --- passes ------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Everything that adds or changes; `sweep` removes, once forwarding has followed."""
        if not self._view.tables.synced:
            return
        self._learn_remotes()
        self._learn_policies()
        self.table.set_subjects(
            {
                number: Subject(labels=plain_labels(labels), ports=named_ports(endpoint.ports))
                for number, (endpoint, labels) in self._subjects.items()
            }
        )
        self._write()
        self._learned.set()

    def sweep(self) -> None:
        """Remove what nothing points to any more: after the ipcache was brought up to date."""
        if not self._learned.is_set():
            return
        self.table.retire()
        self._write()
        rows, classes = self._gone
        left_rows, left_classes = self._left
        self._dataplane.remove_policy(rows | left_rows, classes | left_classes)
        self._gone, self._left = (set(), set()), (set(), set())

    def _write(self) -> None:
        """What a full map did not take stays pending, and no endpoint is given its number."""
        delta = self.table.pending
        if delta:
            self._dataplane.write_policy(delta.classes, delta.rows)
        rows, classes = self._gone
        self._gone = ((rows | delta.gone_rows) - delta.rows.keys(), classes | delta.gone_classes)
        self._flip(delta.touched)
        if delta:
            self._log.info("policy changed", rows=len(delta.rows), classes=len(delta.classes))
        self.table.written()

    def _flip(self, touched: set[int]) -> None:
        """Give endpoints their policy ids; flows of those whose rules changed ask again."""
        changed: dict[int, EndpointPolicy] = {}
        for number, (endpoint, _) in self._subjects.items():
            policy_id = self.table.assignments.get(number, NO_POLICY)
            before = self._kept.get(number)
            same = before is not None and (before.policy_id, before.audit) == (
                policy_id, endpoint.audit,
            )  # fmt: skip
            if not same or policy_id in touched:
                self._epoch += 1
                changed[number] = EndpointPolicy(policy_id, self._epoch, endpoint.audit)
        if not changed:
            return
        self._kept |= changed
        for row in self._dataplane.endpoints().values():
            if row.endpoint_id in changed:
                self._dataplane.update_endpoint(self.policed(row))

    # --- what the tables say -----------------------------------------------------------------

    def _learn_remotes(self) -> None:
        ports = self._ports_by_identity()
        now = self._labels
        seen = set()
        for identity in self._view.identities():
            number = identity.number
            seen.add(number)
            named = frozenset(ports.get(number, ()))
            known = now.get(number)
            if known is not None and known[0] is identity.labels and known[1] == named:
                continue
            now[number] = (identity.labels, named)
            labels = plain_labels(identity.labels)
            self.table.upsert(Remote(number=number, labels=labels, named_ports=named))
        for number in now.keys() - seen:
            del now[number]
            self.table.remove(number)

    def _ports_by_identity(self) -> dict[int, set[tuple[str, int, int]]]:
        found: defaultdict[int, set[tuple[str, int, int]]] = defaultdict(set)
        for view in self._view.clusters.values():
            for entry in view.ips.values():
                if entry.named_ports:
                    found[entry.identity] |= named_ports(entry.named_ports)
        return found

    def _learn_policies(self) -> None:
        """Everything anew when a manifest changed, or what selectors mean."""
        changed = self.table.set_local_only(self._view.cluster.policy_default_local)
        before, now = self._meanings, self._read((*POLICY_KINDS, GROUP_KIND))
        if any(name_services(found) for _, found in now.values() if isinstance(found, tuple)):
            now |= self._read(SERVICE_KINDS)
        same = now.keys() == before.keys() and all(now[key] is before[key] for key in now)
        if same and not changed:
            return
        self._meanings = now
        meanings = (found for _, found in now.values())
        self.table.set_policies(*policies_of(meanings, self._local.cluster.name))

    def _read(self, kinds: Collection[str]) -> dict[str, tuple[Manifest, Any]]:
        """The manifests of these kinds with what they mean; each is read once."""
        stored = {key: ("", each) for key, each in self._view.tables.manifests.items.items()}
        asked = self._view.asked_by_others().items()
        stored |= {key: (shared.origin, shared.manifest) for key, shared in asked}
        found = {}
        for key in sorted(stored):
            (origin, manifest), known = stored[key], self._meanings.get(key)
            if manifest.key.kind in kinds:
                unchanged = known is not None and known[0] is manifest
                found[key] = (
                    known if known and unchanged else (manifest, meaning_of(origin, manifest))
                )
        return found


def meaning_of(origin: str, manifest: Manifest) -> Any:
    """What a manifest means, with the cluster that asks for it; empty: this one."""
    found = meaning(manifest)
    if not origin:
        return found
    if isinstance(found, CidrGroup):
        return attrs.evolve(found, origin=origin)
    return tuple(attrs.evolve(policy, origin=origin) for policy in found)


def policies_of(meanings: Iterable[Any], cluster: str) -> tuple[list[Policy], Named]:
    """What a policy table is made from, out of manifests of every kind it knows."""
    policies: list[Policy] = []
    by_type: dict[type[Any], list[Any]] = {CidrGroup: [], Service: [], EndpointSlice: []}
    for found in meanings:
        if isinstance(found, tuple):
            policies += found
        else:
            by_type[type(found)].append(found)
    services = policy_services(by_type[Service], by_type[EndpointSlice], cluster)
    return policies, Named(tuple(by_type[CidrGroup]), services)


def named_ports(ports: dict[str, str]) -> NamedPorts:
    """`{"http": "8080/tcp"}` as (name, protocol, port)."""
    found = set()
    for name, text in ports.items():
        number, _, protocol = text.partition("/")
        if protocol.upper() in PROTOCOLS:
            found.add((name, PROTOCOLS[protocol.upper()], int(number)))
    return frozenset(found)
