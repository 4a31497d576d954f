"""Health checks against real servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address

from meshnet.agent.checks import FAILURES, Checks
from meshnet.model.service import BackendAddress, Check, Protocol

TCP, HTTP = Check(), Check(path="/healthz")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[BackendAddress]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield BackendAddress(ip_address("127.0.0.1"), port, Protocol.TCP)
    finally:
        server.close()
        await server.wait_closed()


def saying(*answers: bytes) -> Handler:
    """One answer a connection, the last one again and again."""
    left = list(answers)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()
        writer.close()

    return handler


def answer(status: bytes) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"


async def nobody() -> None:
    """Nobody is told."""


async def rounds(at: BackendAddress, check: Check, count: int) -> tuple[Checks, int]:
    """After so many rounds, with how often a change was told."""
    told: list[None] = []

    async def changed() -> None:
        told.append(None)

    checks = Checks(lambda: {at: check}, changed)
    for _ in range(count):
        await checks.round()
    return checks, len(told)


async def test_a_backend_that_answers_is_well() -> None:
    async with serving(saying(answer(b"204 No Content"))) as at:
        for check in (TCP, HTTP):
            checks, told = await rounds(at, check, 3)
            assert (checks.failing, told) == ({}, 0)


async def test_a_backend_is_out_after_failures_in_a_row_and_told_once() -> None:
    async with serving(saying(answer(b"503 Service Unavailable"))) as at:
        checks, _ = await rounds(at, HTTP, FAILURES - 1)
        assert checks.failing == {}
        checks, told = await rounds(at, HTTP, FAILURES + 2)
        assert (checks.failing, told) == ({at: "GET /healthz: HTTP 503"}, 1)


async def test_one_failure_between_two_good_answers_is_nothing() -> None:
    well, ill = answer(b"200 OK"), answer(b"500 No")
    async with serving(saying(ill, well, ill, well)) as at:
        checks, told = await rounds(at, HTTP, 4)
        assert (checks.failing, told) == ({}, 0)


async def test_a_backend_that_answers_again_is_back_at_once() -> None:
    ill = answer(b"500 No")
    async with serving(saying(*[ill] * FAILURES, answer(b"200 OK"))) as at:
        checks, told = await rounds(at, HTTP, FAILURES + 1)
        assert (checks.failing, told) == ({}, 2)


async def test_who_refuses_connections_is_out() -> None:
    async with serving(saying(b"")) as at:
        pass  # gone now
    checks, _ = await rounds(at, TCP, FAILURES)
    assert list(checks.failing) == [at]
    assert checks.failing[at] == "Connection refused"


async def test_who_speaks_no_http_or_says_nothing_is_out() -> None:
    for said in (b"SSH-2.0-x\r\n\r\n", b""):
        async with serving(saying(said)) as at:
            checks, _ = await rounds(at, HTTP, FAILURES)
            assert list(checks.failing) == [at]


async def test_who_is_no_target_any_more_is_forgotten() -> None:
    at = BackendAddress(ip_address("127.0.0.1"), 9, Protocol.TCP)
    targets = {at: TCP}
    checks = Checks(lambda: targets, nobody)
    for _ in range(FAILURES):
        await checks.round()
    assert list(checks.failing) == [at]
    targets.clear()
    await checks.round()
    assert checks.failing == {}
