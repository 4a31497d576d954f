"""Why a packet passes or does not: the rules themselves, asked for one pair and one port."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from meshnet.logic.peers import Remote, Scope
from meshnet.logic.policy_set import (
    LoweredPolicy,
    LoweredRule,
    Subject,
    defaults_of,
    entry_of,
)
from meshnet.logic.port_rows import covers, decide
from meshnet.model.policy import Direction
from meshnet.model.ruling import Verdict


@attrs.frozen(kw_only=True)
class RuleSeen:
    """A rule that is about this pair and port."""

    policy: str
    place: str
    deny: bool
    audit: bool


@attrs.frozen(kw_only=True)
class Explanation:
    """One end's answer."""

    verdict: Verdict
    selecting: tuple[str, ...]
    """Titles of the policies that are about the endpoint in this direction."""
    rules: tuple[RuleSeen, ...]

    @property
    def missing(self) -> str:
        """What would have to be there, where nothing allows it."""
        if self.verdict is Verdict.ALLOW or any(rule.deny for rule in self.rules):
            return ""
        return f"no rule of {', '.join(self.selecting)} allows it"


def explain(
    policies: Iterable[LoweredPolicy],
    scope: Scope,
    subject: Subject,
    direction: Direction,
    remote: Remote,
    protocol: int,
    port: int,
) -> Explanation:
    """The verdict at the subject's end. `remote`: of the world, with its whole address as
    prefix."""
    mine = [each for each in policies if each.policy.subject.matches(subject.labels)]
    ports = subject.ports if direction is Direction.INGRESS else remote.named_ports
    about: list[tuple[LoweredPolicy, int, LoweredRule]] = [
        (each, place, rule)
        for each in mine
        for place, rule in enumerate(each.rules)
        if rule.direction is direction
        and (rule.peers is None or any(scope.selects(peer, remote) for peer in rule.peers))
    ]
    entries, seen = [], []
    for each, place, rule in about:
        entry = entry_of(rule, ports, specific=rule.peers is not None)
        if covers(entry, protocol, port):
            entries.append(entry)
            seen.append(
                RuleSeen(
                    policy=each.policy.title,
                    place=each.policy.rules[place].place,
                    deny=rule.deny,
                    audit=rule.audit,
                )
            )
    selecting = tuple(
        each.policy.title
        for each in mine
        if direction in each.policy.default_deny
        or any(rule.direction is direction for rule in each.rules)
    )
    ruling = decide(entries, defaults_of(mine)[direction])
    return Explanation(verdict=ruling.verdict, selecting=selecting, rules=tuple(seen))
