"""This cluster's etcd while it is started again: answers are lost, then nobody answers."""

from __future__ import annotations

from collections.abc import Sequence

from meshnet.errors import Unreachable
from meshnet.kvstore.api import Compare, Operation, TxnResult
from meshnet.kvstore.memory import MemoryKV

AWAY = 2
"""Requests that nobody answers after an answer was lost."""


class LossyKV(MemoryKV):
    """Restarts right after the next `restarts` writes took effect: their answers are lost."""

    def __init__(self) -> None:
        super().__init__()
        self.restarts = 0
        self._away = 0

    def leave(self, requests: int) -> None:
        """Answer none of so many requests to come."""
        self._away = requests

    def _admit(self, *keys: str) -> None:
        if self._away:
            self._away -= 1
            raise _gone("connection refused")
        super()._admit(*keys)

    async def txn(self, compares: Sequence[Compare], then: Sequence[Operation]) -> TxnResult:
        result = await super().txn(compares, then)
        if self.restarts and result.succeeded:
            self.restarts -= 1
            self._away = AWAY
            raise _gone("it closed the connection")
        return result


def _gone(reason: str) -> Unreachable:
    error = Unreachable(f"etcd at h:2379 is unreachable: {reason}")
    error.own_etcd = True
    return error
