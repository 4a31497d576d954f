"""The relay between a remote's Watch stream and etcd's, message by message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs
import etcd3.etcdrpc as pb
import pytest

from meshnet.errors import PermissionRefused
from meshnet.gateway.filter import Exports
from meshnet.gateway.relay import FIRST_REFUSED_ID, WatchRelay

EOF = object()
ALLOWED = b"cilium/.heartbeat"
FORBIDDEN = b"meshnet/v1/config"


@attrs.define
class Pipe:
    """One end of a stream: `told` comes out of read, writes end up in `heard`."""

    told: asyncio.Queue[Any] = attrs.field(factory=asyncio.Queue)
    heard: asyncio.Queue[Any] = attrs.field(factory=asyncio.Queue)
    done: bool = False

    async def read(self) -> Any:
        message = await self.told.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def write(self, message: Any) -> None:
        if self.done:
            raise asyncio.InvalidStateError("RPC already finished.")
        await self.heard.put(message)

    async def done_writing(self) -> None:
        await self.heard.put(EOF)

    async def next(self) -> Any:
        async with asyncio.timeout(5):
            return await self.heard.get()


@attrs.frozen
class Scene:
    remote: Pipe
    etcd: Pipe
    relay: WatchRelay
    running: asyncio.Task[None]

    async def create(self, key: bytes) -> None:
        request = pb.WatchCreateRequest(key=key)
        await self.remote.told.put(pb.WatchRequest(create_request=request))

    async def answer(self, watch_id: int, **fields: Any) -> None:
        await self.etcd.told.put(pb.WatchResponse(watch_id=watch_id, **fields))


@contextlib.asynccontextmanager
async def relaying(room: str | None = None) -> AsyncIterator[Scene]:
    remote, etcd = Pipe(), Pipe()

    async def header() -> pb.ResponseHeader:
        return pb.ResponseHeader(cluster_id=7, revision=3)

    relay = WatchRelay(
        exports=Exports.of("east"),
        room=lambda: room,
        header=header,
        downstream=remote,
        upstream=etcd,
        eof=EOF,
    )
    running = asyncio.ensure_future(relay.run())
    try:
        yield Scene(remote, etcd, relay, running)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_refusal_waits_its_turn_behind_the_creations_before_it() -> None:
    """Clients match answers to requests by order alone."""
    async with relaying() as scene:
        await scene.create(ALLOWED)
        await scene.create(FORBIDDEN)
        await scene.create(ALLOWED)
        assert [(await scene.etcd.next()).create_request.key for _ in range(2)] == [ALLOWED] * 2
        assert scene.remote.heard.empty(), "etcd has not answered the first yet"

        await scene.answer(0, created=True)
        await scene.answer(1, created=True)
        answers = [await scene.remote.next() for _ in range(3)]

    assert [(a.watch_id, a.created, a.canceled) for a in answers] == [
        (0, True, False),
        (FIRST_REFUSED_ID, True, True),
        (1, True, False),
    ]
    assert answers[1].header.cluster_id == 7
    assert answers[1].cancel_reason == (
        "meshnet gateway: 'meshnet/v1/config' is not exported to other clusters"
    )


async def test_every_refusal_has_an_id_of_its_own() -> None:
    async with relaying() as scene:
        for _ in range(3):
            await scene.create(FORBIDDEN)
        answers = [await scene.remote.next() for _ in range(3)]

    assert [a.watch_id - FIRST_REFUSED_ID for a in answers] == [0, 1, 2]
    assert scene.etcd.heard.empty(), "etcd never hears of them"


async def test_cancelling_a_refused_watch_does_not_reach_etcd() -> None:
    async with relaying() as scene:
        for watch_id in (FIRST_REFUSED_ID, 5):
            cancel = pb.WatchCancelRequest(watch_id=watch_id)
            await scene.remote.told.put(pb.WatchRequest(cancel_request=cancel))

        assert (await scene.etcd.next()).cancel_request.watch_id == 5


async def test_watches_count_from_the_request_until_they_are_cancelled() -> None:
    async with relaying() as scene:
        await scene.create(ALLOWED)
        await scene.etcd.next()
        assert scene.relay.watches == 1, "asked for"
        await scene.answer(0, created=True)
        await scene.remote.next()
        assert scene.relay.watches == 1, "open"
        await scene.answer(0, canceled=True)
        await scene.remote.next()
        assert scene.relay.watches == 0


async def test_no_room_is_a_refusal_like_any_other() -> None:
    async with relaying(room="16 watches open") as scene:
        await scene.create(ALLOWED)
        answer = await scene.remote.next()

    assert answer.canceled
    assert answer.cancel_reason == "meshnet gateway: 16 watches open"


async def test_fields_that_the_filter_does_not_know_do_not_reach_etcd() -> None:
    async with relaying() as scene:
        known = pb.WatchCreateRequest(key=ALLOWED).SerializeToString()
        newer = pb.WatchCreateRequest.FromString(known + b"\x38\x05")  # watch_id = 5, of etcd 3.4
        await scene.remote.told.put(pb.WatchRequest(create_request=newer))

        forwarded = await scene.etcd.next()

    assert forwarded.create_request.SerializeToString() == known


async def test_request_that_is_none_of_the_three_ends_the_stream() -> None:
    async with relaying() as scene:
        await scene.remote.told.put(pb.WatchRequest())
        with pytest.raises(ExceptionGroup) as group:
            await scene.running

    (failure,) = group.value.exceptions
    assert isinstance(failure, PermissionRefused)
    assert str(failure) == "a watch request is create, cancel or progress"


async def test_cut_ends_the_stream_with_its_reason_though_both_sides_are_mute() -> None:
    async with relaying() as scene:
        await asyncio.sleep(0)
        scene.relay.cut("gone")
        scene.relay.cut("gone again")
        with pytest.raises(ExceptionGroup) as group:
            await scene.running

    assert [str(failure) for failure in group.value.exceptions] == ["gone"]


async def test_end_of_either_side_ends_the_other() -> None:
    async with relaying() as scene:
        await scene.remote.told.put(EOF)
        assert await scene.etcd.next() is EOF
        await scene.etcd.told.put(EOF)
        async with asyncio.timeout(5):
            await scene.running


async def test_etcds_failure_wins_over_a_write_that_came_too_late() -> None:
    async with relaying() as scene:
        scene.etcd.done = True
        await scene.create(ALLOWED)
        await asyncio.sleep(0)
        await scene.etcd.told.put(ConnectionError("etcd is gone"))
        with pytest.raises(ExceptionGroup) as group:
            async with asyncio.timeout(5):
                await scene.running

    assert [str(failure) for failure in group.value.exceptions] == ["etcd is gone"]
