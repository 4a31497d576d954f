"""The node's DNS resolver: names of the mesh answered here, all others forwarded.

Listens on the node's gateway addresses, so only its endpoints and the node itself ask it.
UDP and TCP (RFC 1035 section 4.2), EDNS sizes (RFC 6891), truncation where an answer does not
fit. Forwarded messages pass unchanged, there and back.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import structlog
from dnslib import AAAA, CNAME, PTR, QTYPE, RCODE, RR, SRV, TXT, A, DNSError, DNSRecord

from meshnet.logic.service_names import Answer, Record, RecordType
from meshnet.model.addressing import Address

PORT = 53
TTL_S = 5
"""Services change, so nobody may remember an answer for long."""
FORWARD_TIMEOUT_S = 2.0
RETRY_S = 5.0
MAX_UDP = 512
"""Where the client does not say that it takes more (RFC 1035 section 2.3.4)."""
MAX_PENDING = 500
"""Questions in the air at once; more are left to the client to repeat."""

Lookup = Callable[[str, str], Answer | None]
_DATA = {
    RecordType.A: lambda data: A(str(data)),
    RecordType.AAAA: lambda data: AAAA(str(data)),
    RecordType.CNAME: CNAME,
    RecordType.PTR: PTR,
    RecordType.TXT: TXT,
    RecordType.SRV: lambda data: SRV(0, 100, data[0], data[1]),
}


class Resolver:
    """Args:
    addresses: where it listens, those of this node inside its PodCIDRs.
    lookup: answers a name and a type, or None for a name that is the world's.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        lookup: Lookup,
        *,
        upstream: Path = Path("/etc/resolv.conf"),
        port: int = PORT,
        upstream_port: int = PORT,
    ) -> None:
        self._addresses = addresses
        self._lookup = lookup
        self._upstream = upstream
        self._port = port
        self._upstream_port = upstream_port
        self._log = structlog.get_logger()
        self._pending = 0
        self._tasks: asyncio.TaskGroup | None = None
        self.error: str | None = None
        """Why it does not listen; None while it does."""

    async def run(self) -> None:
        """Never returns. Where the port is taken it goes on trying."""
        while True:
            try:
                opened = await self._listen()
            except OSError as error:
                if self.error is None:
                    self._log.error("resolver does not listen", error=str(error))
                self.error = f"port {self._port} of {self._addresses[0]}: {error.strerror}"
                await asyncio.sleep(RETRY_S)
                continue
            self.error = None
            async with opened, asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await asyncio.Event().wait()

    async def _listen(self) -> contextlib.AsyncExitStack:
        """Both sockets of every address, or none of them. Raises OSError."""
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            for address in self._addresses:
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self._received), local_addr=(str(address), self._port)
                )
                stack.callback(transport.close)
                server = await asyncio.start_server(self._stream, str(address), self._port)
                stack.callback(server.close)
            return stack.pop_all()

    def _received(
        self, message: bytes, client: tuple[str, int], transport: asyncio.DatagramTransport
    ) -> None:
        if self._tasks is not None and self._pending < MAX_PENDING:
            self._tasks.create_task(self._datagram(message, client, transport))

    async def answer(self, message: bytes, *, most: int | None = None) -> bytes | None:
        """The answer to one message; None for one that is no question.

        Args:
            most: bytes that the client takes, None for any number.
        """
        try:
            question = DNSRecord.parse(message)
        except DNSError:
            return None
        if question.header.qr or len(question.questions) != 1:
            return None
        name = str(question.q.qname).rstrip(".")
        found = self._lookup(name, QTYPE.get(question.q.qtype, str(question.q.qtype)))
        if found is None:
            forwarded = await self._forward(message, stream=most is None)
            return forwarded or _failed(question)
        reply = _reply(question, found)
        packed: bytes = reply.pack()
        if most is not None and len(packed) > max(most, _edns_size(question)):
            packed = reply.truncate().pack()
        return packed

    async def _forward(self, message: bytes, *, stream: bool) -> bytes | None:
        """What the first of the machine's own resolvers says that answers."""
        ask = _ask_stream if stream else _ask_datagram
        for server in _nameservers(self._upstream):
            if server in self._addresses:
                continue  # ourselves
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(FORWARD_TIMEOUT_S):
                    return await ask(str(server), self._upstream_port, message)
        return None

    async def _datagram(
        self, message: bytes, client: tuple[str, int], transport: asyncio.DatagramTransport
    ) -> None:
        self._pending += 1
        try:
            answer = await self.answer(message, most=MAX_UDP)
        finally:
            self._pending -= 1
        if answer is not None and not transport.is_closing():
            transport.sendto(answer, client)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.timeout(30):
                while True:
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    answer = await self.answer(await reader.readexactly(length))
                    if answer is None:
                        break
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(
        self, received: Callable[[bytes, tuple[str, int], asyncio.DatagramTransport], None]
    ) -> None:
        self._received = received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # not a subclass in 3.11

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._received(data, addr, self._transport)


def _reply(question: DNSRecord, found: Answer) -> DNSRecord:
    reply = question.reply(ra=1, aa=1)
    if not found.exists:
        reply.header.rcode = RCODE.NXDOMAIN
    for record in random.sample(found.records, len(found.records)):
        reply.add_answer(_resource(record))
    for record in found.additional:
        reply.add_ar(_resource(record))
    return reply


def _resource(record: Record) -> RR:
    kind = getattr(QTYPE, record.type)
    return RR(record.name, kind, rdata=_DATA[record.type](record.data), ttl=TTL_S)


def _failed(question: DNSRecord) -> bytes:
    reply = question.reply(ra=1, aa=0)
    reply.header.rcode = RCODE.SERVFAIL
    packed: bytes = reply.pack()
    return packed


def _edns_size(question: DNSRecord) -> int:
    return next((rr.rclass for rr in question.ar if rr.rtype == QTYPE.OPT), 0)


def _nameservers(path: Path) -> list[Address]:
    """Source: resolv.conf(5). Read each time: DHCP and VPNs change it."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                found.append(ip_address(words[1]))
    return found


async def _ask_datagram(server: str, port: int, message: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Asked(answered), remote_addr=(server, port)
    )
    try:
        transport.sendto(message)
        return await answered
    finally:
        transport.close()


class _Asked(asyncio.DatagramProtocol):
    """One question to one server: a connected socket takes nobody else's answer."""

    def __init__(self, answered: asyncio.Future[bytes]) -> None:
        self._answered = answered

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self._answered.done():
            self._answered.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answered.done():
            self._answered.set_exception(exc)


async def _ask_stream(server: str, port: int, message: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(len(message).to_bytes(2, "big") + message)
        await writer.drain()
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
