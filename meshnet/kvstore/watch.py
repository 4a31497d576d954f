"""One Watch stream that carries every watch of a connection.

The mesh gateway allows a remote few streams and Cilium's client too uses a single one.
Nobody owns the reading side: there is at most one read under way, each subscriber waits
for it, and whoever wakes first hands the answer to whom it belongs. The writing side asks
for a sign of life when it has nothing else to say, so a frozen server is noticed even
where TCP and HTTP/2 see nothing wrong (facts: gRPC's keepalive alone does not).
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import attrs
import etcd3.etcdrpc as pb
import grpc

from meshnet.errors import Denied, RegistryError
from meshnet.kvstore.channel import Connection, Connections

HAS_LEADER = (("hasleader", "true"),)
"""etcd ends the stream when its member is cut off from the quorum."""


class Moved(Exception):
    """The connection was replaced: watch again on the new one, nothing is lost."""


@attrs.define(eq=False)
class Subscription:
    """One watch. Its server gives it an id when it answers the creation."""

    watch_id: int | None = None
    inbox: deque[Any] = attrs.field(factory=deque)
    closed: bool = False


class WatchStream:
    """`sign_of_life_s`: how often the server must say something, at least half as often."""

    def __init__(
        self, connection: Connection, connections: Connections, *, sign_of_life_s: float
    ) -> None:
        self._connection = connection
        self._connections = connections
        self._sign_of_life_s = sign_of_life_s
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._call = connection.watch.Watch(self._speak(), metadata=HAS_LEADER)
        self._read: asyncio.Future[Any] | None = None
        self._heard_at = time.monotonic()
        self._creating: deque[Subscription] = deque()
        """In the order asked: the server answers in that order."""
        self._watches: dict[int, Subscription] = {}
        self._failure: RegistryError | None = None

    @property
    def usable(self) -> bool:
        """False: it failed or was abandoned, open another one."""
        return self._failure is None and not self._call.done()

    @contextlib.asynccontextmanager
    async def subscribe(self, request: Any) -> AsyncIterator[Subscription]:
        """A watch by etcd's WatchCreateRequest, until the block is left."""
        subscription = Subscription()
        self._creating.append(subscription)
        self._requests.put_nowait(pb.WatchRequest(create_request=request))
        try:
            yield subscription
        finally:
            self._unsubscribe(subscription)

    async def receive(self, subscription: Subscription) -> Any:
        """The next WatchResponse of this watch. Raises Moved, Unreachable, Denied."""
        while not subscription.inbox:
            if self._failure is not None:
                raise copy.copy(self._failure)
            if self._connection.retired:
                raise Moved
            await self._read_one()
        return subscription.inbox.popleft()

    async def _read_one(self) -> None:
        """Wait for the read under way, or until the server has been mute for too long."""
        if self._read is None:
            self._read = asyncio.ensure_future(self._call.read())
        reading = self._read
        patience = self._heard_at + self._sign_of_life_s - time.monotonic()
        done, _ = await asyncio.wait((reading,), timeout=max(0.0, patience))
        if reading is not self._read:
            return
        if done:
            self._read = None
            self._take(reading)
        elif time.monotonic() - self._heard_at >= self._sign_of_life_s:
            mute = f"it froze: no sign of life for {self._sign_of_life_s:g} s"
            self._fail(self._connections.unreachable(self._connection, mute))

    def _take(self, reading: asyncio.Future[Any]) -> None:
        try:
            response = reading.result()
        except asyncio.CancelledError:
            self._fail(self._connections.unreachable(self._connection, "the connection was closed"))
        except grpc.aio.AioRpcError as error:
            self._fail(self._connections.translate(self._connection, error))
        else:
            if response is grpc.aio.EOF:
                why = "it ended the stream of watches"
                self._fail(self._connections.unreachable(self._connection, why))
            else:
                self._heard_at = time.monotonic()
                self._dispatch(response)

    def _dispatch(self, response: Any) -> None:
        if response.created and not self._creating:
            server = self._connections.server
            self._fail(Denied(f"{server} answered a watch that was not asked for"))
        elif response.created:
            subscription = self._creating.popleft()
            subscription.watch_id = response.watch_id
            if not response.canceled:
                self._watches[response.watch_id] = subscription
            if subscription.closed:
                self._unsubscribe(subscription)
            subscription.inbox.append(response)
        elif response.watch_id in self._watches:
            self._watches[response.watch_id].inbox.append(response)

    def _unsubscribe(self, subscription: Subscription) -> None:
        """Cancel one watch; with the last one the stream ends."""
        subscription.closed = True
        watch_id = subscription.watch_id
        if watch_id is not None and watch_id in self._watches:
            del self._watches[watch_id]
            cancel = pb.WatchCancelRequest(watch_id=watch_id)
            self._requests.put_nowait(pb.WatchRequest(cancel_request=cancel))
        if not self._watches and all(waiting.closed for waiting in self._creating):
            self._end()

    def _fail(self, failure: RegistryError) -> None:
        self._failure = failure
        self._end()

    def _end(self) -> None:
        self._call.cancel()
        if self._read is not None:
            self._read.cancel()

    async def _speak(self) -> AsyncIterator[Any]:
        """What the call sends: requests as they come, otherwise a question for progress."""
        while True:
            try:
                yield await asyncio.wait_for(self._requests.get(), self._sign_of_life_s / 4)
            except TimeoutError:
                yield pb.WatchRequest(progress_request=pb.WatchProgressRequest())
