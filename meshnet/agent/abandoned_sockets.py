"""Ends connected datagram sockets whose backend is gone, so that their owners connect again.

Only sockets that got the backend from a service: the socket programs remember what each asked
for (`socket_peers`), by the cookie that sock_diag gives too. A map that overflows forgets the
sockets that connected longest ago; those stay as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from meshnet.dataplane.api import Dataplane
from meshnet.errors import MeshnetError, NetlinkRefused, NotFound
from meshnet.logic.abandoned import Living, abandoned, left
from meshnet.model.service import BackendAddress, Frontend, Protocol

RACE_S = 0.2
"""A socket that connected while its backend left may become visible only afterwards."""

Destroy = Callable[[str | None, Mapping[int, BackendAddress]], Awaitable[set[int]]]


class AbandonedSockets:
    """Args:
    namespaces: paths of the endpoints' network namespaces; the node's own is always asked.
    destroy: netlink/sockets.py's.
    """

    def __init__(
        self,
        dataplane: Dataplane,
        namespaces: Callable[[], Iterable[str]],
        destroy: Destroy,
    ) -> None:
        self._dataplane = dataplane
        self._namespaces = namespaces
        self._destroy = destroy
        self._living: Living = {
            frontend: frozenset(row.slots)
            for frontend, row in dataplane.services().items()
            if frontend.protocol is Protocol.UDP
        }
        """What an earlier agent left, until the first pass."""
        self._gone: dict[Frontend, frozenset[BackendAddress]] = {}
        self._wake = asyncio.Event()
        self._log = structlog.get_logger()

    def observe(self, living: Living) -> None:
        """After every pass over the services, when the maps have it."""
        for frontend, backends in left(self._living, living).items():
            self._gone[frontend] = self._gone.get(frontend, frozenset()) | backends
            self._wake.set()
        self._living = living

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            gone, self._gone = self._gone, {}
            await self._sweep(gone)
            await asyncio.sleep(RACE_S)
            await self._sweep(gone)

    async def _sweep(self, gone: Living) -> None:
        try:
            peers = await asyncio.to_thread(self._dataplane.socket_peers)
        except MeshnetError as error:
            self._stay(error)
            return
        wanted = abandoned(peers, gone, self._living)
        ended: set[int] = set()
        for netns in (None, *self._namespaces()):
            if len(ended) == len(wanted):
                break
            try:
                ended |= await self._destroy(netns, wanted)
            except NotFound:
                continue  # its endpoint went meanwhile, and the sockets with it
            except MeshnetError as error:
                self._stay(error)
                if isinstance(error, NetlinkRefused):
                    return  # the kernel says the same everywhere
        if ended:
            self._log.info("sockets of backends that are gone destroyed", sockets=len(ended))

    def _stay(self, error: MeshnetError) -> None:
        self._log.warning("sockets of a backend that is gone stay", error=str(error))
