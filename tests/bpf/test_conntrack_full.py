"""A full table: what is swept, what is counted, what an eviction does."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from socket import IPPROTO_TCP

import pytest

from meshnet.agent import problems
from meshnet.agent.conntrack import ConntrackSweeper
from meshnet.dataplane import abi, conntrack
from meshnet.dataplane.bpf import Map
from meshnet.dataplane.rows import pack_address
from meshnet.dataplane.schema import Sizes
from tests.support.bpf import REDIRECT, Node
from tests.support.packets import tcp
from tests.support.talk import Talk
from tests.support.two_nodes import Host, Pair, inside, two_nodes

pytestmark = pytest.mark.bpf

CAPACITY = Sizes.lab().conntrack


def flows(first: int, count: int, *, over: bool) -> list[tuple[bytes, bytes]]:
    """Rows of other people's flows."""
    expires = conntrack.now_ticks() + (-1 if over else 50)
    value = bytes(abi.Conntrack(expires=expires))
    found = []
    for number in range(first, first + count):
        key = abi.ConntrackKey(protocol=17, endpoint_port=number & 0xFFFF, peer_port=number >> 16)
        raw = bytearray(bytes(key))
        raw[:16], raw[16:32] = (
            pack_address(ip_address("10.1.0.11")),
            pack_address(ip_address("10.2.0.99")),
        )
        found.append((bytes(raw), value))
    return found


def usage(east: Node) -> int:
    (row,) = [row for row in east.dataplane.maps() if row.name == "conntrack"]
    return row.entries


def test_what_is_over_is_swept_and_what_lives_is_counted(east: Node) -> None:
    rows = east.map("conntrack")
    rows.update_many(flows(0, 6000, over=True) + flows(6000, 3000, over=False))

    assert east.dataplane.sweep_conntrack() == 6000

    assert rows.count() == usage(east) == 3000
    assert east.dataplane.sweep_conntrack() == 0


async def test_the_agents_sweep_makes_a_full_table_a_problem(east: Node) -> None:
    east.map("conntrack").update_many(flows(0, CAPACITY * 9 // 10, over=False))
    assert "conntrack" not in str(problems.of_maps(east.dataplane.maps()))

    await ConntrackSweeper(east.dataplane).reconcile()

    (found,) = problems.of_maps(east.dataplane.maps())
    assert found.id == "map-full"
    assert f"conntrack has {usage(east)} of at most {CAPACITY}" in found.message


def test_absent_rows_do_not_stop_a_batch_of_deletions(east: Node) -> None:
    rows: Map = east.map("conntrack")
    here = [key for key, _ in flows(0, 300, over=False)]
    rows.update_many(flows(0, 300, over=False))
    absent = [key for key, _ in flows(1000, 3, over=False)]

    rows.delete_many([absent[0], *here[:100], absent[1], *here[100:], absent[2]])

    assert rows.count() == 0


def evict(rows: Map, key: bytes) -> None:
    """A CPU has a list of rows that it made lately, which others do not take: flood each."""
    cpus = os.sched_getaffinity(0)
    try:
        for turn, cpu in enumerate(sorted(cpus) * 4):
            os.sched_setaffinity(0, {cpu})
            rows.update_many(flows(turn * 2 * CAPACITY, 2 * CAPACITY, over=False))
            if rows.lookup(key) is None:
                return
    finally:
        os.sched_setaffinity(0, cpus)
    pytest.fail("the row was not evicted")


def test_a_connection_whose_row_was_evicted_goes_on(talk: Talk) -> None:
    talk.out(tcp(4000, 80))
    rows = talk.east.map("conntrack")
    ((mine, _),) = list(rows.items())
    evict(rows, mine)

    ack = tcp(80, 4000)
    data = bytearray(ack.data)
    data[13] = 0x10
    assert talk.back(type(ack)(ack.protocol, bytes(data))) == REDIRECT

    assert rows.lookup(mine) is not None


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with two_nodes(tmp_path / "bpf") as nodes:
        yield nodes


def _serve(host: Host, ready: threading.Event, got: list[str]) -> None:
    with inside(host.endpoint), socket.create_server(("10.2.0.10", 9000)) as server:
        server.settimeout(20)
        ready.set()
        connection, _ = server.accept()
        digest = sha256()
        with connection:
            connection.settimeout(20)
            while data := connection.recv(1 << 16):
                digest.update(data)
        got.append(digest.hexdigest())


@pytest.mark.netlink
def test_live_tcp_survives_a_flood_of_new_flows_on_both_nodes(pair: Pair) -> None:
    """Every flood is more than the table holds, and takes the connection's own rows along
    (the LRU spares one that is in use, so they are deleted); then the transfer goes on."""
    pair.travel_over(4)
    ready, got = threading.Event(), []  # type: ignore[var-annotated]
    server = threading.Thread(target=_serve, args=(pair.west, ready, got))
    server.start()
    assert ready.wait(10)
    piece = bytes(range(256)) * 1024
    tables = [pair.dataplanes[host.name]._set.maps["conntrack"] for host in (pair.east, pair.west)]

    with inside(pair.east.endpoint), socket.create_connection(("10.2.0.10", 9000), 20) as sender:
        for turn in range(5):
            for table in tables:
                table.update_many(flows(turn * 2 * CAPACITY, 2 * CAPACITY, over=False))
                table.delete_many([key for key, _ in table.items() if key[36] == IPPROTO_TCP])
            sender.sendall(piece)
    server.join(timeout=30)

    assert got == [sha256(piece * 5).hexdigest()], pair.drops(pair.east) + pair.drops(pair.west)
    assert any(row["guessed"] for row in pair.dump(pair.west, "conntrack")), "rows were lost"
