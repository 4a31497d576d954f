"""One remote's Watch stream, joined to one stream to our etcd.

etcd answers creations in the order they were asked for, and clients count on it: they
match an answer to a request by order, and events to a watch by its id. So a refusal waits
its turn behind the creations before it, and bears an id that etcd will not give out:
with id 0 it would end the first, innocent watch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from etcd3 import etcdrpc

from meshnet.errors import PermissionRefused
from meshnet.gateway.filter import Exports

FIRST_REFUSED_ID = 1 << 40
"""etcd counts the watches of a stream up from 0 and never comes here."""


class Stream(Protocol):
    """Either end of the relay, as grpc.aio has them."""

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF."""

    async def write(self, message: Any) -> None: ...


class Upstream(Stream, Protocol):
    async def done_writing(self) -> None: ...


class WatchRelay:
    """Runs until either side ends the stream, or until `cut`.

    Args:
        room: whether one more watch may be opened; answers the reason why not.
        header: makes the header for an answer of our own.
        eof: what `read` answers at the end of a stream.
    """

    def __init__(
        self,
        *,
        exports: Exports,
        room: Callable[[], str | None],
        header: Callable[[], Awaitable[etcdrpc.ResponseHeader]],
        downstream: Stream,
        upstream: Upstream,
        eof: object,
    ) -> None:
        self._exports = exports
        self._room = room
        self._header = header
        self._downstream = downstream
        self._upstream = upstream
        self._eof = eof
        self._open: set[int] = set()
        self._unanswered: deque[etcdrpc.WatchResponse | None] = deque()
        """Creations in order: None for one that etcd will answer, else our refusal."""
        self._refused = 0
        self._writing = asyncio.Lock()
        self._cut: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def watches(self) -> int:
        """Watches open, and those on their way."""
        return len(self._open) + sum(1 for answer in self._unanswered if answer is None)

    def cut(self, reason: str) -> None:
        """End the stream now. `run` raises PermissionRefused with the reason."""
        if not self._cut.done():
            self._cut.set_result(reason)

    async def run(self) -> None:
        """Relay both ways. Errors of either stream come out in an ExceptionGroup."""
        async with asyncio.TaskGroup() as group:
            others = (
                group.create_task(self._relay_requests()),
                group.create_task(self._until_cut()),
            )
            try:
                await self._relay_responses()
            finally:
                for task in others:
                    task.cancel()

    async def _until_cut(self) -> None:
        raise PermissionRefused(await self._cut)

    async def _relay_requests(self) -> None:
        while (request := await self._downstream.read()) is not self._eof:
            # what the filter did not look at must not reach etcd
            request.DiscardUnknownFields()
            match request.WhichOneof("request_union"):
                case "create_request":
                    await self._create(request)
                case "cancel_request" if request.cancel_request.watch_id >= FIRST_REFUSED_ID:
                    pass  # ended already, when it was refused
                case "cancel_request" | "progress_request":
                    await self._ask(request)
                case _:
                    raise PermissionRefused("a watch request is create, cancel or progress")
        await self._upstream.done_writing()

    async def _ask(self, request: etcdrpc.WatchRequest) -> None:
        try:
            await self._upstream.write(request)
        except asyncio.InvalidStateError:
            # etcd's side is over; the reader of its responses gets to know why
            await asyncio.Event().wait()

    async def _create(self, request: etcdrpc.WatchRequest) -> None:
        wanted = request.create_request
        refusal = self._exports.refusal(wanted.key, wanted.range_end) or self._room()
        if refusal is None:
            self._unanswered.append(None)
            await self._ask(request)
            return
        answer = etcdrpc.WatchResponse(
            header=await self._header(),
            watch_id=FIRST_REFUSED_ID + self._refused,
            created=True,
            canceled=True,
            cancel_reason=f"meshnet gateway: {refusal}",
        )
        self._refused += 1
        async with self._writing:
            self._unanswered.append(answer)
            await self._answer_refused()

    async def _relay_responses(self) -> None:
        while (response := await self._upstream.read()) is not self._eof:
            async with self._writing:
                if response.created:
                    self._unanswered.popleft()
                    self._open.add(response.watch_id)
                if response.canceled:
                    self._open.discard(response.watch_id)
                await self._downstream.write(response)
                await self._answer_refused()

    async def _answer_refused(self) -> None:
        """Write the refusals that nothing stands before any more."""
        while self._unanswered and self._unanswered[0] is not None:
            await self._downstream.write(self._unanswered.popleft())
