"""The policy maps in process: what is written, and what the programs would say by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from meshnet.dataplane.abi import PolicyNumber
from meshnet.logic.port_rows import ruling_of
from meshnet.model.dataplane import EndpointRow, PolicyKey
from meshnet.model.policy import Direction
from meshnet.model.ruling import PortRow, Verdict


class MemoryPolicy:
    def __init__(self) -> None:
        self._policy: dict[PolicyKey, int] = {}
        self._classes: dict[int, tuple[PortRow, ...]] = {}

    def policy(self) -> dict[PolicyKey, int]:
        return dict(self._policy)

    def policy_classes(self) -> set[int]:
        return {number for number, rows in self._classes.items() if rows}

    def write_policy(
        self, classes: Mapping[int, Iterable[PortRow]], rows: Mapping[PolicyKey, int]
    ) -> None:
        self._classes |= {number: tuple(ports) for number, ports in classes.items()}
        self._policy |= rows

    def remove_policy(self, rows: Iterable[PolicyKey], classes: Iterable[int]) -> None:
        for key in rows:
            self._policy.pop(key, None)
        for number in classes:
            self._classes.pop(number, None)

    def judge(
        self, row: EndpointRow, direction: Direction, remote: int, protocol: int, port: int
    ) -> Verdict:
        """What the policy of an endpoint says of a flow with this remote."""
        if not row.policy_id:
            return Verdict.ALLOW
        key = PolicyKey(row.policy_id, direction, remote)
        number = self._policy.get(key) or self._policy[attrs.evolve(key, remote=0)]
        if number == PolicyNumber.ALLOW_CLASS:
            return Verdict.ALLOW
        verdict = ruling_of(self._classes[number], protocol, port).verdict
        return Verdict.AUDIT if verdict is Verdict.DENY and row.audit else verdict
