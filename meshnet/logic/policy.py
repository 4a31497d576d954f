"""Policies, identities and endpoints in; the rows of the policy maps out, change by change.

Two maps: {policy id, direction, remote} -> class, and {class, protocol, port} -> verdict.
Endpoints that the same policies select share a policy id; remotes that the same rules are
about share a class. A policy id never changes its rules: when they change it gets another
number, whose rows are complete before an endpoint is given it. A new remote touches the
policies whose rules select it and nothing else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import attrs

from meshnet.logic.peers import (
    FIRST_PREFIX_NUMBER,
    LoweredPeer,
    NamedPorts,
    Remote,
    Scope,
    Selections,
    named_prefixes,
    prefix_remote,
)
from meshnet.logic.policy_set import (
    ALLOW_CLASS,
    ANYBODY,
    NO_POLICY,
    LoweredPolicy,
    LoweredRule,
    PolicySet,
    Subject,
    SubjectIndex,
    Title,
    defaults_of,
    entry_of,
    port_names,
)
from meshnet.logic.port_rows import Defaults, Entry, port_rows
from meshnet.model.addressing import Prefix
from meshnet.model.dataplane import PolicyKey
from meshnet.model.policy import (
    Direction,
    Named,
    NamedPort,
    Policy,
)
from meshnet.model.ruling import PortRow


@attrs.define
class Delta:
    """What is different from what was written, in the order it must be written."""

    classes: dict[int, tuple[PortRow, ...]] = attrs.field(factory=dict)
    rows: dict[PolicyKey, int] = attrs.field(factory=dict)
    """-> class."""
    gone_rows: set[PolicyKey] = attrs.field(factory=set)
    gone_classes: set[int] = attrs.field(factory=set)
    touched: set[int] = attrs.field(factory=set)
    """Policy ids whose rows changed: flows of theirs must ask again."""

    def __bool__(self) -> bool:
        return bool(self.classes or self.rows or self.gone_rows or self.gone_classes)


class PolicyTable:
    """Args: `first`: the lowest number that no row of an earlier agent has."""

    def __init__(self, scope: Scope, *, first: int = ALLOW_CLASS + 1) -> None:
        self.scope = scope
        self._next = max(first, ALLOW_CLASS + 1)
        self.selections = Selections(scope)
        self.assignments: dict[int, int] = {}
        """Endpoint id -> policy id."""
        self.sets: dict[int, PolicySet] = {}
        self.prefixes: dict[Prefix, int] = {}
        """What policies name, with its number."""
        self._retiring: set[int] = set()
        self.rules: dict[int, Title] = {}
        """The name of every rule that has a number."""
        self._rule_numbers: dict[Title, int] = {}
        self._lowered: dict[Policy, LoweredPolicy] = {}
        self.policies: tuple[LoweredPolicy, ...] = ()
        self._about = SubjectIndex(())
        self._named = Named()
        self._subjects: dict[int, Subject] = {}
        self._set_of: dict[tuple[tuple[LoweredPolicy, ...], NamedPorts], int] = {}
        self._users: defaultdict[LoweredPeer, set[int]] = defaultdict(set)
        self._name_users: defaultdict[str, set[int]] = defaultdict(set)
        self._class_of: dict[tuple[frozenset[Entry], Defaults], int] = {}
        self._class_key: dict[int, tuple[frozenset[Entry], Defaults]] = {}
        self._class_users: Counter[int] = Counter()
        self._delta = Delta()

    # --- inputs ------------------------------------------------------------------------------

    def set_policies(self, policies: Sequence[Policy], named: Named) -> None:
        """All policies of the cluster; what did not change costs nothing."""
        if named != self._named:
            self._named = named
            self._lowered = {}  # rarely changed: every rule is read anew
        before = self._lowered
        self._lowered = {p: before.get(p) or self._lower(p) for p in policies}
        self.policies = tuple(self._lowered[policy] for policy in policies)
        self._about = SubjectIndex(self.policies)
        self._track_prefixes()
        self._assign()

    def set_local_only(self, local_only: bool) -> bool:
        """What a selector that names no cluster means, from the next `set_policies` on.
        Answers whether that is something else than before."""
        if local_only == self.scope.local_only:
            return False
        self.scope = attrs.evolve(self.scope, local_only=local_only)
        self._lowered = {}
        return True

    def set_subjects(self, subjects: Mapping[int, Subject]) -> None:
        """The endpoints here, by id."""
        if dict(subjects) != self._subjects:
            self._subjects = dict(subjects)
            self._assign()

    def upsert(self, remote: Remote) -> None:
        before = self.selections.remotes.get(remote.number)
        if before == remote:
            return
        names = {name for r in (before, remote) if r for name, _, _ in r.named_ports}
        self._recompute(remote.number, self.selections.upsert(remote), names)

    def remove(self, number: int) -> None:
        before = self.selections.remotes.get(number)
        names = {name for name, _, _ in before.named_ports} if before else set()
        self._recompute(number, self.selections.remove(number), names)

    def retire(self) -> None:
        """Forget prefixes that no policy names any more. Until then they are ruled as any
        other, since packets are given their numbers until the ipcache has lost them."""
        while self._retiring:
            self.remove(self._retiring.pop())

    def rows_of(self, number: int) -> tuple[PortRow, ...]:
        """Of a class that is in use."""
        return port_rows(*self._class_key[number])

    # --- output ------------------------------------------------------------------------------

    @property
    def pending(self) -> Delta:
        """What changed since `written` was last said. A write that fails keeps it."""
        return self._delta

    def written(self) -> None:
        """All that is pending is in the maps."""
        self._delta = Delta()

    # --- policies ----------------------------------------------------------------------------

    def _lower(self, policy: Policy) -> LoweredPolicy:
        rules = []
        named = self._named.of(policy.origin)
        for rule in policy.rules:
            peers = rule.peers
            lowered = None if peers is None else self.scope.lowered(peers, named)
            number = self._number_of((policy.title, rule.place))
            rules.append(
                LoweredRule(
                    number,
                    rule.direction,
                    rule.deny,
                    policy.audit,
                    lowered,
                    rule.ports,
                    policy.origin,
                )
            )
        return LoweredPolicy(policy, tuple(rules))

    def _number_of(self, title: Title) -> int:
        number = self._rule_numbers.get(title)
        if number is None:
            number = self._rule_numbers[title] = len(self._rule_numbers) + 1
            self.rules[number] = title
        return number

    def _track_prefixes(self) -> None:
        peers = [p for each in self.policies for rule in each.rules for p in rule.peers or ()]
        wanted = named_prefixes(peers)
        for prefix in self.prefixes.keys() - wanted:
            self._retiring.add(self.prefixes.pop(prefix))
        for prefix in sorted(wanted - self.prefixes.keys(), key=str):
            number = FIRST_PREFIX_NUMBER + self._draw()
            self.prefixes[prefix] = number
            self.upsert(prefix_remote(number, prefix))

    def _draw(self) -> int:
        number, self._next = self._next, self._next + 1
        return number

    # --- policy ids --------------------------------------------------------------------------

    def _assign(self) -> None:
        """Give every endpoint the policy id of the policies that select it now."""
        chosen: dict[int, int] = {}
        by_subject: dict[tuple[tuple[tuple[str, str], ...], NamedPorts], int] = {}
        for endpoint, subject in self._subjects.items():
            alike = (tuple(sorted(subject.labels.items())), subject.ports)
            if alike not in by_subject:
                by_subject[alike] = self._set_for(subject)
            chosen[endpoint] = by_subject[alike]
        self.assignments = chosen
        for number in self.sets.keys() - set(chosen.values()):
            self._drop_set(number)

    def _set_for(self, subject: Subject) -> int:
        members = self._about.matching(subject.labels)
        if not members:
            return NO_POLICY
        names = port_names(members, Direction.INGRESS)
        ports = frozenset(port for port in subject.ports if port[0] in names)
        key = (members, ports)
        if key not in self._set_of:
            self._set_of[key] = self._make_set(members, ports)
        return self._set_of[key]

    def _make_set(self, members: tuple[LoweredPolicy, ...], ports: NamedPorts) -> int:
        made = PolicySet(self._draw(), members, ports, defaults_of(members))
        for rule in (rule for each in members for rule in each.rules):
            if rule.peers is None:
                made.always.setdefault(rule.direction, []).append(rule)
            for peer in rule.peers or ():
                made.by_peer.setdefault(peer, []).append(rule)
        made.port_names = {
            port.name
            for rule in made.always.get(Direction.EGRESS, ())
            for port in rule.ports or ()
            if isinstance(port, NamedPort)
        }
        self.sets[made.number] = made
        self.selections.register(made.by_peer)
        for peer in made.by_peer:
            self._users[peer].add(made.number)
        for name in made.port_names:
            self._name_users[name].add(made.number)
        self._fill(made)
        return made.number

    def _fill(self, made: PolicySet) -> None:
        for direction in Direction:
            self._write(made, direction, ANYBODY, self._class_for(made, direction, None, ()))
        for number in self._concerned(made):
            self._rule(made, number)

    def _concerned(self, made: PolicySet) -> set[int]:
        """The remotes that its rules may treat apart from everybody."""
        found: set[int] = set()
        for peer in made.by_peer:
            found |= self.selections.selected[peer]
        for name in made.port_names:
            found |= self.selections.by_port_name[name]
        return found

    def _drop_set(self, number: int) -> None:
        gone = self.sets.pop(number)
        del self._set_of[gone.members, gone.ports]
        for direction, remote in list(gone.rows):
            self._write(gone, direction, remote, None)
        for peer in gone.by_peer:
            self._users[peer].discard(number)
        for name in gone.port_names:
            self._name_users[name].discard(number)
        unused = [peer for peer in gone.by_peer if not self._users[peer]]
        self.selections.forget(unused)
        for peer in unused:
            del self._users[peer]

    # --- rows --------------------------------------------------------------------------------

    def _recompute(self, number: int, peers: Iterable[LoweredPeer], names: Iterable[str]) -> None:
        affected = {user for peer in peers for user in self._users.get(peer, ())}
        affected |= {user for name in names for user in self._name_users.get(name, ())}
        # an egress rule by name may be about a peer that selects it, too
        for user in affected:
            self._rule(self.sets[user], number)

    def _rule(self, made: PolicySet, number: int) -> None:
        """The rows of one remote in one policy id; none where it is like everybody."""
        remote = self.selections.remotes.get(number)
        matched = self.selections.matched.get(number, set())
        rules = [rule for peer in matched for rule in made.by_peer.get(peer, ())]
        for direction in Direction:
            specific = [rule for rule in rules if rule.direction is direction]
            chosen = None
            if remote is not None:
                chosen = self._class_for(made, direction, remote, specific)
                if chosen == made.rows[direction, ANYBODY]:
                    chosen = None
            self._write(made, direction, number, chosen)

    def _class_for(
        self,
        made: PolicySet,
        direction: Direction,
        remote: Remote | None,
        specific: Iterable[LoweredRule],
    ) -> int:
        ports = made.ports
        if direction is Direction.EGRESS:
            ports = remote.named_ports if remote else frozenset()
        entries = {entry_of(rule, ports, specific=True) for rule in specific}
        entries |= {
            entry_of(rule, ports, specific=False) for rule in made.always.get(direction, ())
        }
        key = (frozenset(entries), made.defaults[direction])
        if key not in self._class_of:
            self._class_of[key] = self._make_class(*key)
        return self._class_of[key]

    def _make_class(self, entries: frozenset[Entry], defaults: Defaults) -> int:
        if not entries and defaults.open:
            return ALLOW_CLASS
        number = self._draw()
        self._class_key[number] = (entries, defaults)
        self._delta.classes[number] = port_rows(entries, defaults)
        return number

    def _write(
        self, made: PolicySet, direction: Direction, remote: int, chosen: int | None
    ) -> None:
        before = made.rows.get((direction, remote))
        if before == chosen:
            return
        key = PolicyKey(made.number, direction, remote)
        self._delta.touched.add(made.number)
        if chosen is None:
            del made.rows[direction, remote]
            self._delta.rows.pop(key, None)
            self._delta.gone_rows.add(key)
        else:
            made.rows[direction, remote] = chosen
            self._delta.rows[key] = chosen
            self._delta.gone_rows.discard(key)
            self._class_users[chosen] += 1
        if before is not None:
            self._release(before)

    def _release(self, number: int) -> None:
        self._class_users[number] -= 1
        if self._class_users[number] or number == ALLOW_CLASS:
            return
        del self._class_users[number]
        del self._class_of[self._class_key.pop(number)]
        if self._delta.classes.pop(number, None) is None:
            self._delta.gone_classes.add(number)
