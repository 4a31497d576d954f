"""Watches the interface between nodes: other routes, other addresses.

Routes are asked again. Another address, MTU or interface is another node to all others, and
what this one is was settled once at start: so the agent begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from meshnet.agent.local import LocalNode
from meshnet.config import Settings
from meshnet.errors import NotFound
from meshnet.model.kernel import Underlay
from meshnet.netlink.api import Netlink

SETTLE_S = 0.2
"""News come in bursts: one look is enough for what came within this time."""


class UnderlayWatch:
    """Args: `routes_changed` is called after any news, `stop` ends the agent's work when the
    underlay became another one; `moved` then says that it is to begin anew."""

    def __init__(
        self,
        local: LocalNode,
        netlink: Netlink,
        settings: Settings,
        *,
        routes_changed: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        self._underlay = local.underlay
        self._netlink = netlink
        self._runs_etcd = settings.etcd.managed
        self._routes_changed = routes_changed
        self._stop = stop
        self._log = structlog.get_logger()
        self.moved = False
        self.fault: str | None = None
        """Why the node cannot follow what happened to its underlay."""

    async def run(self) -> None:
        """Never returns."""
        news = asyncio.Event()
        news.set()  # something may have changed since the start
        async with asyncio.TaskGroup() as group:
            group.create_task(self._netlink.watch(news.set))
            while True:
                await news.wait()
                await asyncio.sleep(SETTLE_S)
                news.clear()
                await self._look()

    async def _look(self) -> None:
        before = self._underlay
        try:
            now = await self._netlink.underlay_by_name(before.ifname)
        except NotFound as error:
            self._refuse(str(error))
            return
        if _same(now, before):
            self.fault = None
            self._routes_changed()
        elif self._runs_etcd and before.addresses[0] not in now.addresses:
            self._refuse(
                f"{before.ifname} has lost {before.addresses[0]}, where the other nodes look for "
                "the etcd that runs here"
            )
        else:
            was, is_now = (list(map(str, u.addresses)) for u in (before, now))
            self._log.info("underlay changed", ifname=now.ifname, before=was, now=is_now)
            self.moved = True
            self._stop()

    def _refuse(self, fault: str) -> None:
        if fault != self.fault:
            self._log.error("underlay lost", error=fault)
        self.fault = fault


def _same(one: Underlay, other: Underlay) -> bool:
    """The MAC is no matter: whoever sends to us asks for it."""
    return (one.ifindex, one.mtu, one.addresses) == (other.ifindex, other.mtu, other.addresses)
