"""Health checks: do the backends of this node do what their services want?

Only the node that owns a backend checks it, whatever the number of its clients' nodes, and
tells the others under its lease what fails. A backend is out after FAILURES checks that
failed in a row, and back after one that did not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping

import attrs
import h11
import structlog

from meshnet.model.service import BackendAddress, Check

INTERVAL_S = 1.0
TIMEOUT_S = 1.0
FAILURES = 2
AT_ONCE = 64
"""Checks in the air."""
USER_AGENT = "meshnet-health"

Targets = Mapping[BackendAddress, Check]


@attrs.define
class _Record:
    failures: int = 0
    reason: str = ""


class Checks:
    """Args:
    targets: the backends of this node that want to be checked, and how.
    changed: awaited when `failing` did.
    """

    def __init__(
        self, targets: Callable[[], Targets], changed: Callable[[], Awaitable[None]]
    ) -> None:
        self._targets = targets
        self._changed = changed
        self._records: dict[BackendAddress, _Record] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._log = structlog.get_logger()
        self.failing: dict[BackendAddress, str] = {}
        """Who is out, and why."""

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self.round()
            await asyncio.sleep(INTERVAL_S)

    async def round(self) -> None:
        """Check each backend once."""
        targets = dict(self._targets())
        self._records = {at: self._records.get(at, _Record()) for at in targets}
        async with asyncio.TaskGroup() as tasks:
            for at, check in targets.items():
                tasks.create_task(self._check(at, check))
        failing = {
            at: record.reason for at, record in self._records.items() if record.failures >= FAILURES
        }
        if failing != self.failing:
            for at in failing.keys() - self.failing.keys():
                self._log.warning("backend fails its checks", backend=str(at), error=failing[at])
            for at in self.failing.keys() - failing.keys():
                self._log.info("backend passes its checks", backend=str(at))
            self.failing = failing
            await self._changed()

    async def _check(self, at: BackendAddress, check: Check) -> None:
        record = self._records[at]
        try:
            async with self._room, asyncio.timeout(TIMEOUT_S):
                await _connect(at, check)
        except TimeoutError:
            record.failures, record.reason = record.failures + 1, "no answer in time"
        except (OSError, h11.RemoteProtocolError, _Unwell) as error:
            # asyncio puts its own words in the place of the errno's
            number = error.errno if isinstance(error, OSError) else None
            record.reason = os.strerror(number) if number else str(error)
            record.failures += 1
        else:
            record.failures = 0


class _Unwell(Exception):
    """The backend answered, and not well."""


async def _connect(at: BackendAddress, check: Check) -> None:
    reader, writer = await asyncio.open_connection(str(at.address), at.port)
    try:
        if check.path is not None:
            await _get(reader, writer, at, check.path)
    finally:
        writer.close()


async def _get(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, at: BackendAddress, path: str
) -> None:
    """Wants a status below 400."""
    connection = h11.Connection(h11.CLIENT)
    host = f"[{at.address}]" if at.address.version == 6 else str(at.address)
    headers = [("Host", f"{host}:{at.port}"), ("User-Agent", USER_AGENT), ("Connection", "close")]
    writer.write(connection.send(h11.Request(method="GET", target=path, headers=headers)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(4096))
        elif isinstance(event, h11.Response):
            if event.status_code >= 400:
                raise _Unwell(f"GET {path}: HTTP {event.status_code}")
            return
        elif isinstance(event, h11.ConnectionClosed):
            raise _Unwell(f"GET {path}: closed without an answer")
