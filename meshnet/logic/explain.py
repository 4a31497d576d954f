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
from meshnet.logic.port_rows import by_origin, covers, decide
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
    covering = [
        (entry, each, place)
        for each, place, rule in about
        if covers(entry := entry_of(rule, ports, specific=rule.peers is not None), protocol, port)
    ]
    entries = [entry for entry, _, _ in covering]
    defaults = defaults_of(mine)[direction]
    verdict = decide(entries, defaults).verdict
    speaking = {o for o, said in by_origin(entries, defaults).items() if said.verdict is verdict}
    return Explanation(
        verdict=verdict,
        selecting=tuple(
            each.policy.title
            for each in mine
            if each.policy.origin in speaking
            and (
                direction in each.policy.default_deny
                or any(rule.direction is direction for rule in each.rules)
            )
        ),
        rules=tuple(
            RuleSeen(
                policy=each.policy.title,
                place=each.policy.rules[place].place,
                deny=entry.deny,
                audit=entry.audit,
            )
            for entry, each, place in covering
            if entry.origin in speaking
        ),
    )
