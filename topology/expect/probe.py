"""Whether endpoints reach each other, how, and as whom they are known."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from meshnet.errors import LabError
from topology import reach as reaching
from topology.expect.model import ALL, PORT, Reach, Verdict
from topology.expect.outcome import Outcome
from topology.inside import run, run_all
from topology.netns.runtime import Condition, condition
from topology.state import LabState

AGAIN_S = 0.3


@attrs.frozen(kw_only=True)
class Endpoint:
    """As its node shows it."""

    name: str
    node: str
    id: int
    identity: int
    ipv4: str
    ipv6: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Endpoint:
        return cls(**{field.name: row[field.name] for field in attrs.fields(cls)})


@attrs.frozen
class Prober:
    lab: LabState
    endpoints: Mapping[str, Endpoint]

    def check(self, expected: Iterable[Reach], within_s: float | None = None) -> Iterator[Outcome]:
        """One outcome a pair, tried again until it is as expected or the time is over."""
        began = time.monotonic()
        pending = {
            (source, target): (one, "not tried")
            for one in expected
            for source, target in self._pairs(one)
        }
        while pending:
            problems = self._try({pair: one for pair, (one, _) in pending.items()})
            spent = time.monotonic() - began
            for pair, (one, _) in list(pending.items()):
                limit = one.within if within_s is None else within_s
                if pair not in problems or spent > limit:
                    del pending[pair]
                    name = f"{pair[0]} to {pair[1]} {one.verdict}"
                    name += f" by {one.mode}" if one.mode else ""
                    yield Outcome(name=name, problem=problems.get(pair, ""), seconds=spent)
                else:
                    pending[pair] = (one, problems[pair])
            if pending:
                time.sleep(AGAIN_S)

    def _pairs(self, one: Reach) -> list[tuple[str, str]]:
        sources = list(self.endpoints) if one.source == ALL else [one.source]
        targets = list(self.endpoints) if one.target == ALL else [one.target]
        return [(source, target) for source in sources for target in targets if source != target]

    def _try(self, pairs: Mapping[tuple[str, str], Reach]) -> dict[tuple[str, str], str]:
        """What is not as expected, by pair."""
        asleep = {
            name: now
            for name, endpoint in self.endpoints.items()
            if (now := condition(self.lab, endpoint.node)) is not Condition.UP
        }
        problems = {
            (source, target): f"{self.endpoints[source].node} is {asleep[source]}"
            for source, target in pairs
            if source in asleep
        }
        pairs = {pair: one for pair, one in pairs.items() if pair[0] not in asleep}
        before = self._drops() if any(one.reason for one in pairs.values()) else {}
        reached = self._reached(pairs)
        seen = self._seen({target for _, target in pairs if target not in asleep})
        modes = self._modes({s for (s, _), one in pairs.items() if one.mode})
        after = self._drops() if before else {}
        grown = {key: count for key, count in after.items() if count > before.get(key, 0)}
        for (source, target), one in pairs.items():
            own, other = self.endpoints[source], self.endpoints[target]
            addresses = (other.ipv4, other.ipv6)
            tried = {a: reached[source].get(a, reaching.Reached()) for a in addresses}
            counted = {(own.node, one.reason), (other.node, one.reason)} & grown.keys()
            problem = (
                _judged(one, tried)
                or _stranger(one, own, other, seen.get(other.node))
                or _other_way(one, own, other, modes)
            )
            if not problem and one.reason and not counted:
                problem = f"neither node counted a drop by reason {one.reason}"
            if problem:
                problems[source, target] = problem
        return problems

    def _reached(
        self, pairs: Iterable[tuple[str, str]]
    ) -> dict[str, Mapping[str, reaching.Reached]]:
        """Every source at the same time, its targets too."""
        addresses: dict[str, list[str]] = {}
        for source, target in pairs:
            other = self.endpoints[target]
            addresses.setdefault(source, []).extend((other.ipv4, other.ipv6))
        found: dict[str, Mapping[str, reaching.Reached]] = {}
        for batch in _one_a_node(addresses, self.endpoints):
            commands = {
                self.endpoints[source].node: (
                    "meshnet", "exec", source, "--", "sh", "-c",
                    reaching.script(addresses[source], PORT, pings=1),
                )
                for source in batch
            }  # fmt: skip
            outputs = run_all(self.lab, commands)
            for source in batch:
                found[source] = reaching.read(outputs[self.endpoints[source].node])
        return found

    def _seen(self, targets: Iterable[str]) -> dict[str, set[tuple[int, int]]]:
        """Node -> endpoint id and identity of what arrived there."""
        nodes = {self.endpoints[target].node for target in targets}
        dumps = self._json(nodes, "map", "dump", "seen_identities")
        return {
            node: {(row["endpoint_id"], row["identity"]) for row in rows}
            for node, rows in dumps.items()
        }

    def _modes(self, sources: Iterable[str]) -> dict[tuple[str, str], str]:
        nodes = {self.endpoints[source].node for source in sources}
        return {
            (node, peer["node"]): peer["mode"]
            for node, status in self._json(nodes, "status").items()
            for peer in status["peers"]
        }

    def _drops(self) -> dict[tuple[str, str], int]:
        nodes = {
            endpoint.node
            for endpoint in self.endpoints.values()
            if condition(self.lab, endpoint.node) is Condition.UP
        }
        counts: dict[tuple[str, str], int] = {}
        for node, rows in self._json(nodes, "drops").items():
            for row in rows:
                key = (node, row["reason"])
                counts[key] = counts.get(key, 0) + row["packets"]
        return counts

    def _json(self, nodes: Iterable[str], *words: str) -> dict[str, Any]:
        argv = ("meshnet", *words, "-o", "json")
        outputs = run_all(self.lab, dict.fromkeys(nodes, argv))
        return {node: json.loads(output) for node, output in outputs.items()}


def find(lab: LabState, node: str, name: str) -> Endpoint | None:
    """An endpoint of a node; None: it has none of that name."""
    try:
        shown = run(lab, node, "meshnet", "endpoint", "show", name, "-o", "json")
    except LabError:
        return None
    return Endpoint.of(json.loads(shown))


def _one_a_node(sources: Iterable[str], endpoints: Mapping[str, Endpoint]) -> Iterator[list[str]]:
    """Batches in which no node occurs twice."""
    left = list(sources)
    while left:
        batch: dict[str, str] = {}
        for source in left:
            batch.setdefault(endpoints[source].node, source)
        yield list(batch.values())
        left = [source for source in left if source not in batch.values()]


def _judged(one: Reach, tried: Mapping[str, reaching.Reached]) -> str:
    """What is wrong about it; empty: nothing."""
    if one.verdict is Verdict.ALLOWED:
        lost = [
            f"{address} {'does not answer ping' if r.rtt_ms is None else 'takes no TCP'}"
            for address, r in tried.items()
            if not r.whole
        ]
        return ", ".join(lost)
    return ", ".join(f"{address} answers" for address, r in tried.items() if not r.not_at_all)


def _stranger(one: Reach, own: Endpoint, other: Endpoint, seen: set[tuple[int, int]] | None) -> str:
    """`seen` is None of a frozen node: it answers packets and no questions."""
    if one.verdict is not Verdict.ALLOWED or not one.identity or seen is None:
        return ""
    if (other.id, own.identity) in seen:
        return ""
    return f"{other.node} did not see identity {own.identity} arrive"


def _other_way(
    one: Reach, own: Endpoint, other: Endpoint, modes: Mapping[tuple[str, str], str]
) -> str:
    mode = modes.get((own.node, other.node))
    if one.mode is None or own.node == other.node or mode == one.mode:
        return ""
    return f"packets from {own.node} to {other.node} go by {mode}, not {one.mode}"
