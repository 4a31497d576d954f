"""Proof that this node's PodCIDRs are still its own.

An allocation has no lease; it is reclaimed, with a higher epoch, when its owner's lease has
been gone for a day. So a node may hand out addresses only while its last proof is young: it
stops at 0.9 of that time, before anybody else could have been given the block.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from meshnet.errors import AllocationError, RegistryError
from meshnet.kvstore.api import KV
from meshnet.model.addressing import PodCIDR
from meshnet.registry import codec, schema

RECLAIM_S = 24 * 3600.0
PROOF_SHARE = 0.9
INTERVAL_S = 60.0
RETRY_S = 2.0


class Ownership:
    """Reads this node's allocations again and again."""

    def __init__(
        self, kv: KV, pod_cidrs: tuple[PodCIDR, ...], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kv = kv
        self._pod_cidrs = pod_cidrs
        self._clock = clock
        self._proved_at: float | None = None
        self.lost: str | None = None
        """Why a block is no longer ours."""

    def require(self) -> None:
        """Raises AllocationError unless this node may hand out addresses now."""
        if self.lost is not None:
            raise AllocationError(
                f"{self.lost}: this node hands out no more addresses; run `meshnet cluster leave` "
                "here and join again"
            )
        if self._proved_at is None:
            raise AllocationError("etcd has not confirmed this node's PodCIDRs yet; try again")
        if self._clock() - self._proved_at > RECLAIM_S * PROOF_SHARE:
            raise AllocationError(
                "etcd has not confirmed this node's PodCIDRs for 21 hours: bring etcd back first"
            )

    async def prove(self) -> None:
        """One look at every block."""
        for mine in self._pod_cidrs:
            key = schema.pod_cidr_allocation(mine.network)
            stored = await self._kv.get(key)
            held = None if stored is None else codec.decode_pod_cidr(key, stored.value)
            if held != mine:
                owner = "nobody" if held is None or not held.node else f"node {held.node}"
                epoch = "" if held is None else f", epoch {held.epoch}"
                self.lost = f"PodCIDR {mine.network} (epoch {mine.epoch}) belongs to {owner}{epoch}"
                return
        self.lost = None
        self._proved_at = self._clock()

    async def run(self) -> None:
        """Never returns."""
        log = structlog.get_logger()
        while True:
            before = self.lost
            try:
                await self.prove()
            except RegistryError:
                await asyncio.sleep(RETRY_S)
                continue
            if self.lost is not None and self.lost != before:
                log.error("PodCIDR lost", error=self.lost)
            await asyncio.sleep(INTERVAL_S)
