"""Does our etcd answer, and the etcd we run ourselves: is it alive."""

from __future__ import annotations

import asyncio

import structlog

from meshnet.errors import MeshnetError, RegistryError
from meshnet.kvstore.api import KV
from meshnet.kvstore.server import EtcdServer

INTERVAL_S = 3.0


class EtcdHealth:
    """`connected`, `revision` and `error` as the latest check found them."""

    def __init__(self, kv: KV) -> None:
        self._kv = kv
        self.connected = False
        self.revision = 0
        self.error: str | None = None

    async def run(self) -> None:
        """Never returns."""
        while True:
            try:
                self.revision = await self._kv.revision()
                self.connected, self.error = True, None
            except RegistryError as error:
                self.connected, self.error = False, str(error)
            await asyncio.sleep(INTERVAL_S)


async def supervise(server: EtcdServer) -> None:
    """Keep our etcd member alive. It is detached: it outlives the agent, and the next
    agent adopts it. Never returns."""
    log = structlog.get_logger()
    while True:
        try:
            if not await server.adopt():
                log.warning("etcd is not running: starting it")
                await server.start()
            elif not server.settled:
                log.info("etcd is started again: what it trusts has changed")
                await server.stop()
                await server.start()
        except MeshnetError as error:
            log.error("etcd does not start", error=str(error))
        await asyncio.sleep(INTERVAL_S)
