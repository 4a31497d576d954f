"""How long the policy resolver takes: 1 000 policies, 10 000 identities, 1 000 endpoints here.

Run with `python bench/policy.py`. Bars: resolve all < 5 s, one more identity < 10 ms.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import attrs

from meshnet.logic.peers import Remote, Scope, plain_labels, reserved_remotes
from meshnet.logic.policy import PolicyTable
from meshnet.logic.policy_set import Subject
from meshnet.model.identity import endpoint_labels
from meshnet.model.policy import (
    TCP,
    UDP,
    Direction,
    EndpointPeer,
    Entity,
    EntityPeer,
    Named,
    Operator,
    Policy,
    PortRange,
    Requirement,
    Rule,
    Selector,
)

POLICIES = 1_000
IDENTITIES = 10_000


def labels(number: int) -> dict[str, str]:
    user = {"app": f"a{number % POLICIES}", "tier": f"t{number % 10}", "pod": str(number)}
    full = endpoint_labels(user, namespace=f"ns{number % 50}", cluster="east")
    return plain_labels(full)


def select(**wanted: str) -> Selector:
    return Selector(
        frozenset(Requirement(k, Operator.IN, frozenset({v})) for k, v in wanted.items())
    )


def policy(number: int) -> Policy:
    """From two other applications, to some of a third, and to the world's DNS."""
    near = [EndpointPeer(select(app=f"a{(number + step) % POLICIES}")) for step in (1, 2)]
    far = EndpointPeer(select(app=f"a{(number + 3) % POLICIES}", tier="t1"))
    return Policy(
        kind="NetworkPolicy",
        namespace="ns",
        name=f"p{number}",
        subject=select(app=f"a{number}"),
        default_deny=frozenset(Direction),
        rules=(
            Rule(Direction.INGRESS, "0", tuple(near), (PortRange(TCP, 80, 80),)),
            Rule(Direction.EGRESS, "1", (far,), (PortRange(TCP, 1000, 2000),)),
            Rule(Direction.EGRESS, "2", (EntityPeer(Entity.WORLD),), (PortRange(UDP, 53, 53),)),
        ),
    )


def one_more(table: PolicyTable) -> Iterator[float]:
    for number in range(200):
        remote = Remote(number=200_000 + number, labels=labels(number))
        began = time.perf_counter()
        table.upsert(remote)
        table.take()
        yield time.perf_counter() - began


def one_changed(table: PolicyTable, policies: list[Policy]) -> Iterator[float]:
    for number in range(20):
        changed = list(policies)
        changed[number] = attrs.evolve(policies[number], rules=policies[number].rules[:1])
        began = time.perf_counter()
        table.set_policies(changed, Named())
        table.take()
        yield time.perf_counter() - began


def main() -> None:
    table = PolicyTable(Scope(cluster="east"))
    for remote in reserved_remotes():
        table.upsert(remote)
    for number in range(IDENTITIES):
        table.upsert(Remote(number=70_000 + number, labels=labels(number)))
    policies = [policy(number) for number in range(POLICIES)]
    began = time.perf_counter()
    table.set_policies(policies, Named())
    table.set_subjects({number: Subject(labels=labels(number)) for number in range(POLICIES)})
    rows = len(table.take().rows)
    print(f"resolve all: {time.perf_counter() - began:.2f} s, {rows} rows")
    for name, taken in (
        ("one more identity", sorted(one_more(table))),
        ("one changed policy", sorted(one_changed(table, policies))),
    ):
        print(
            f"{name}: median {taken[len(taken) // 2] * 1e3:.3f} ms, worst {taken[-1] * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
