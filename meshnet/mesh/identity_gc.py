"""Takes back identities that nobody uses, as Cilium does.

An identity is in use while a node holds a value key of its labels, or an address has its
number. It goes when it was unused in two consecutive rounds with the same mod revision: a
node that takes it up again writes its key anew, which both resets the two rounds and fails
the compare of a collection that is under way. Its number rests for GRACE_S afterwards, in
which nobody is given it: others may still take it for what it was.
"""

from __future__ import annotations

import asyncio

import structlog

from meshnet.errors import PoisonedKey, Unreachable
from meshnet.kvstore.api import KV, Delete, KeyValue, Operation, Put, Unchanged
from meshnet.mesh.leadership import FencedWriter
from meshnet.registry import codec, schema

ROUND_S = 15 * 60.0
GRACE_S = 10 * 60
"""Longer than any row outlives its key (logic/stale.py) and any cluster's mirror is behind."""


class IdentityCollector:
    def __init__(self, kv: KV, *, interval_s: float = ROUND_S) -> None:
        self._kv = kv
        self._interval_s = interval_s
        self._unused: dict[str, int] = {}
        self._log = structlog.get_logger()

    async def run(self, writer: FencedWriter) -> None:
        """For ever. Raises LeaseLost when this node leads no more."""
        self._unused.clear()
        while True:
            try:
                await self.round(writer)
            except Unreachable as error:
                self._log.warning("identities not collected", error=str(error))
            await asyncio.sleep(self._interval_s)

    async def round(self, writer: FencedWriter) -> list[str]:
        """One round; answers the keys of the identities that were taken back."""
        identities = (await self._kv.list(schema.IDENTITIES)).pairs
        # Listed after the identities, so that whoever took one up in between is seen.
        labels, numbers = await self._in_use()
        unused = {
            pair.key: pair
            for pair in identities
            if pair.value not in labels and schema.last_of(pair.key) not in numbers
        }
        due = [p for key, p in unused.items() if self._unused.get(key) == p.mod_revision]
        self._unused = {key: pair.mod_revision for key, pair in unused.items()}
        lease = await self._kv.grant(GRACE_S) if due else 0
        return [pair.key for pair in due if await self._collect(writer, pair, lease)]

    async def _in_use(self) -> tuple[set[bytes], set[str]]:
        """(canonical labels that nodes hold, numbers that addresses have)."""
        holds = (await self._kv.list(schema.IDENTITY_VALUES)).pairs
        labels = {
            pair.key.removeprefix(schema.IDENTITY_VALUES).rpartition("/")[0].encode()
            for pair in holds
        }
        numbers = set()
        for pair in (await self._kv.list(schema.IPS)).pairs:
            try:
                numbers.add(str(codec.decode_ip_entry(pair.key, pair.value).identity))
            except PoisonedKey:
                continue  # it has no identity that anybody could use
        return labels, numbers

    async def _collect(self, writer: FencedWriter, pair: KeyValue, lease: int) -> bool:
        compares = [Unchanged(pair.key, pair.mod_revision)]
        resting = Put(schema.retired_identity(schema.last_of(pair.key)), pair.value, lease)
        changes: list[Operation] = [Delete(pair.key), resting]
        allocation = await self._kv.get(_allocation_key(pair.value))
        if allocation is not None and allocation.value == schema.last_of(pair.key).encode():
            compares.append(Unchanged(allocation.key, allocation.mod_revision))
            changes.append(Delete(allocation.key))
        if not await writer.write_if(compares, changes):
            return False
        self._log.info("identity collected", identity=schema.last_of(pair.key), key=pair.key)
        return True


def _allocation_key(labels: bytes) -> str:
    return f"{schema.IDENTITY_ALLOCATIONS}{labels.decode(errors='surrogateescape')}"
