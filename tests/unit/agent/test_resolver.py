"""The resolver over real sockets on loopback: ours answered, the rest forwarded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from dnslib import RCODE, DNSRecord

from meshnet.agent.resolver import MAX_UDP, Resolver
from meshnet.logic.service_names import NO_SUCH_NAME, Answer, Record, RecordType

HOST = ip_address("127.0.0.1")
VIP = ip_address("100.64.0.10")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((str(HOST), 0))
        number: int = probe.getsockname()[1]
        return number


def lookup(name: str, kind: str) -> Answer | None:
    if not name.endswith("cluster.local"):
        return None
    if name.startswith("web."):
        return Answer(True, (Record(name, RecordType.A, VIP),) if kind == "A" else ())
    if name.startswith("many."):
        records = (Record(name, RecordType.A, ip_address(f"10.0.0.{n}")) for n in range(1, 101))
        return Answer(True, tuple(records))
    return NO_SUCH_NAME


class World(asyncio.DatagramProtocol):
    """A resolver of the world that answers everything with 192.0.2.1."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(world(data), addr)  # type: ignore[attr-defined]


def world(message: bytes) -> bytes:
    question = DNSRecord.parse(message)
    reply = question.reply()
    reply.add_answer(*_zone(f"{question.q.qname} 60 A 192.0.2.1"))
    packed: bytes = reply.pack()
    return packed


def _zone(text: str) -> list[object]:
    from dnslib import RR

    return list(RR.fromZone(text))


class Client:
    def __init__(self, port: int) -> None:
        self._port = port

    async def datagram(self, message: bytes) -> DNSRecord:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, (str(HOST), self._port))
            await loop.sock_sendall(sock, message)
            async with asyncio.timeout(10):
                return DNSRecord.parse(await loop.sock_recv(sock, 1 << 16))

    async def stream(self, message: bytes) -> DNSRecord:
        reader, writer = await asyncio.open_connection(str(HOST), self._port)
        writer.write(len(message).to_bytes(2, "big") + message)
        async with asyncio.timeout(10):
            length = int.from_bytes(await reader.readexactly(2), "big")
            answer = DNSRecord.parse(await reader.readexactly(length))
        writer.close()
        return answer

    async def ask(self, name: str, kind: str = "A") -> DNSRecord:
        return await self.datagram(DNSRecord.question(name, kind).pack())


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A resolver whose world answers."""
    port, upstream_port = free_port(), free_port()
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"# comment\nsearch example.com\nnameserver {HOST.packed[0]}.0.0.2\n")
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        World, local_addr=("127.0.0.2", upstream_port)
    )
    resolver = Resolver([HOST], lookup, upstream=conf, port=port, upstream_port=upstream_port)
    running = asyncio.create_task(resolver.run())
    async with asyncio.timeout(10):
        while not await listens(port):
            await asyncio.sleep(0.01)
    try:
        yield Client(port)
    finally:
        running.cancel()
        await asyncio.wait([running])
        transport.close()


async def listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(str(HOST), port)
        writer.close()
        return True
    return False


async def test_a_name_of_the_mesh_is_answered_here(client: Client) -> None:
    answer = await client.ask("web.default.svc.cluster.local")
    assert [str(rr.rdata) for rr in answer.rr] == [str(VIP)]
    assert answer.header.aa == 1


async def test_a_name_that_is_not_there_is_not_asked_of_the_world(client: Client) -> None:
    answer = await client.ask("api.default.svc.cluster.local")
    assert (answer.header.rcode, answer.rr) == (RCODE.NXDOMAIN, [])


async def test_a_name_without_that_type_is_no_error(client: Client) -> None:
    answer = await client.ask("web.default.svc.cluster.local", "AAAA")
    assert (answer.header.rcode, answer.rr) == (RCODE.NOERROR, [])


async def test_all_other_names_are_the_worlds(client: Client) -> None:
    answer = await client.ask("example.com")
    assert [str(rr.rdata) for rr in answer.rr] == ["192.0.2.1"]


async def test_what_does_not_fit_a_datagram_is_asked_again_by_tcp(client: Client) -> None:
    question = DNSRecord.question("many.default.svc.cluster.local").pack()
    short = await client.datagram(question)
    assert short.header.tc == 1
    assert len(short.pack()) <= MAX_UDP
    assert len((await client.stream(question)).rr) == 100


async def test_a_client_that_takes_more_is_given_more(client: Client) -> None:
    from dnslib import EDNS0

    question = DNSRecord.question("many.default.svc.cluster.local")
    question.add_ar(EDNS0(udp_len=4096))
    assert len((await client.datagram(question.pack())).rr) == 100


async def test_noise_is_not_answered_and_harms_nobody(client: Client) -> None:
    for noise in (b"", b"\0" * 11, b"\xff" * 600):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.datagram(noise)
    assert (await client.ask("web.default.svc.cluster.local")).rr


async def test_where_the_world_does_not_answer_the_client_is_told(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\n")  # ourselves: not asked
    resolver = Resolver([HOST], lookup, upstream=conf)
    answer = await resolver.answer(DNSRecord.question("example.com").pack(), most=MAX_UDP)
    assert answer is not None
    assert DNSRecord.parse(answer).header.rcode == RCODE.SERVFAIL


async def test_a_taken_port_is_told_and_taken_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshnet.agent.resolver.RETRY_S", 0.05)
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((str(HOST), port))
        resolver = Resolver([HOST], lookup, port=port)
        running = asyncio.create_task(resolver.run())
        async with asyncio.timeout(10):
            while resolver.error is None:
                await asyncio.sleep(0.01)
    assert f"port {port} of 127.0.0.1" in resolver.error
    async with asyncio.timeout(10):
        while resolver.error is not None:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
