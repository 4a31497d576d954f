"""A remote that says too much, or answers as no etcd would: it loses, and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import etcd3.etcdrpc as pb
import pytest
from etcd3.etcdrpc import kv_pb2

from meshnet.kvstore.api import Delete
from meshnet.kvstore.memory import MemoryKV
from meshnet.mesh.budget import Budget
from meshnet.mesh.replica import MAX_LEFT_OUT
from meshnet.registry import schema
from tests.support.impostor import HEADER, Impostor, impostor, pairs
from tests.support.mesh import (
    Borrowed,
    as_mirrored,
    contents,
    entry,
    introduction,
    ip_key,
    lead,
    mirroring,
    node,
    node_key,
    put_all,
    state,
    status_when,
    until,
)

pytestmark = pytest.mark.timeout(60)
HONEST = state(nodes=1, endpoints=20)


async def west_store() -> MemoryKV:
    store = MemoryKV()
    await put_all(store, introduction() | HONEST)
    return store


async def test_a_flood_of_keys_leaves_what_was_there_and_is_over_when_it_is_over() -> None:
    ours, west = MemoryKV(), await west_store()
    async with mirroring(ours, await lead(ours), lambda _: Borrowed(west), max_keys=30) as mirror:
        await status_when(ours, lambda status: status.ready)
        flood = dict(ip_key(entry(1, last)) for last in range(100, 250))
        junk = {f"{schema.IPS}junk-{number}": b"{" for number in range(2 * MAX_LEFT_OUT)}
        await put_all(west, flood | junk)
        status = await status_when(ours, lambda status: status.refused > 0, timeout=20)
        assert status.ready
        copied = await contents(ours, schema.cache_ips("west"))
        assert len(copied) == 30
        assert as_mirrored(HONEST).items() <= (await contents(ours, schema.CACHES)).items()
        assert any("more than 30 keys" in refusal.reason for refusal in status.refusals)
        assert len(mirror.status().refusals) <= 20
        assert mirror.status().refused <= 30 + MAX_LEFT_OUT, "a flood does not fill our memory"

        going = [*list(flood)[10:], *junk]
        for start in range(0, len(going), 100):
            await west.txn((), [Delete(key) for key in going[start : start + 100]])
        wanted = as_mirrored(HONEST | dict(list(flood.items())[:10]))
        await until(ours, schema.CACHES, lambda found: found == wanted)


async def test_a_flood_of_bytes_is_held_to_the_budget_and_honest_keys_stay() -> None:
    ours, west = MemoryKV(), await west_store()
    options: Any = {"max_bytes": 64 << 10}
    async with mirroring(ours, await lead(ours), lambda _: Borrowed(west), **options):
        await status_when(ours, lambda status: status.ready)
        padding = b" " * 10_000
        await put_all(west, {k: v + padding for k, v in map(ip_key, _entries(range(100, 120)))})
        status = await status_when(ours, lambda status: status.refused > 10, timeout=20)
        assert all("more than 65536 bytes" in refusal.reason for refusal in status.refusals)
        found = await contents(ours, schema.CACHES)
        assert as_mirrored(HONEST).items() <= found.items()
        assert sum(map(len, found.values())) <= 64 << 10


def _entries(lasts: range) -> list[Any]:
    return [entry(1, last) for last in lasts]


async def test_a_remote_that_rewrites_all_the_time_is_slowed_down() -> None:
    now, waited = 0.0, []

    async def pause(seconds: float) -> None:
        nonlocal now
        waited.append(seconds)
        now += seconds

    budget = Budget(burst_bytes=1000, bytes_per_s=100, clock=lambda: now, pause=pause)
    await budget.spend(1000)
    assert not waited, "the first copy is free"
    for _ in range(10):
        await budget.spend(500)
    assert now == pytest.approx(50.0), "5 000 bytes at 100 a second"
    now += 1000.0
    await budget.spend(1000)
    assert now == pytest.approx(1050.0), "what was saved is capped by the burst"


@pytest.fixture
async def liar() -> AsyncIterator[Impostor]:
    async with impostor(introduction() | HONEST) as made:
        yield made


def foreign_list(_: Any) -> Any:
    return pb.RangeResponse(header=HEADER, kvs=pairs({"meshnet/v1/config": b"{}"}), count=1)


def empty_page(_: Any) -> Any:
    return pb.RangeResponse(header=HEADER, more=True, count=5)


def endless_pages(request: Any) -> Any:
    """Always one more key, always more to come."""
    made = kv_pb2.KeyValue(key=request.key + b"a", value=b"x" * 50_000, mod_revision=1)
    return pb.RangeResponse(header=HEADER, kvs=[made], more=True, count=1 << 40)


def enormous_list(request: Any) -> Any:
    found = {f"{request.key.decode()}{n}": b"x" * 500_000 for n in range(5)}
    return pb.RangeResponse(header=HEADER, kvs=pairs(found), count=5)


def another_id(_: Any) -> Any:
    config = {schema.cluster_config("west"): b'{"id":1,"capabilities":{}}'}
    return pb.RangeResponse(header=HEADER, kvs=pairs(config), count=1)


def no_capabilities(_: Any) -> Any:
    config = {schema.cluster_config("west"): b'{"id":2,"capabilities":[1]}'}
    return pb.RangeResponse(header=HEADER, kvs=pairs(config), count=1)


def huge_config(_: Any) -> Any:
    config = {schema.cluster_config("west"): b'{"id":2,"x":"%s"}' % (b"x" * 100_000)}
    return pb.RangeResponse(header=HEADER, kvs=pairs(config), count=1)


ANSWERS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "keys of another prefix": (schema.IPS, foreign_list, "keys that were not asked for"),
    "an empty page and more": (schema.IPS, empty_page, "keys that were not asked for"),
    "pages without end": (schema.IPS, endless_pages, "more than 1 MiB"),
    "more than fits": (schema.IDENTITIES, enormous_list, "more than 1 MiB"),
    "our cluster id": (schema.cluster_config("west"), another_id, "answers with cluster id 1"),
    "capabilities of no shape": (schema.cluster_config("west"), no_capabilities, "capabilities"),
    "an enormous cluster-config": (schema.cluster_config("west"), huge_config, "65536 at most"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_listing_no_etcd_would_give_ends_the_session_with_a_reason(
    name: str, liar: Impostor
) -> None:
    key, answer, reason = ANSWERS[name]
    ours = MemoryKV()
    async with mirroring(ours, await lead(ours), lambda _: liar.kv()):
        await status_when(ours, lambda status: status.ready)
        liar.lists[key] = answer
        await liar.restart()
        status = await status_when(ours, lambda status: reason in (status.error or ""), timeout=20)
        assert not status.connected
        assert await contents(ours, schema.CACHES) == as_mirrored(HONEST)

        liar.lists.clear()
        await status_when(ours, lambda status: status.ready, timeout=20)


async def until_error(ours: MemoryKV, reason: str) -> None:
    await status_when(ours, lambda status: reason in (status.error or ""), timeout=20)


def _event(key: str, value: bytes = b"{}") -> Any:
    changed = kv_pb2.KeyValue(key=key.encode(), value=value, mod_revision=200)
    return pb.WatchResponse(events=[kv_pb2.Event(kv=changed)])


WATCHES: dict[str, tuple[Any, str]] = {
    "an event of another prefix": (_event("meshnet/v1/config"), "keys that were not asked for"),
    "an event of another kind": (
        _event(node_key(node(1))[0], node_key(node(1))[1]),
        "keys that were not asked for",
    ),
    "a watch nobody asked for": (pb.WatchResponse(created=True), "that was not asked for"),
    "a refusal": (pb.WatchResponse(canceled=True, cancel_reason="x" * 100_000), "characters)"),
}


@pytest.mark.parametrize("name", WATCHES)
async def test_an_event_no_etcd_would_send_ends_the_session_with_a_reason(
    name: str, liar: Impostor
) -> None:
    lie, reason = WATCHES[name]
    liar.watches[schema.IPS] = [lie]
    ours = MemoryKV()
    async with mirroring(ours, await lead(ours), lambda _: liar.kv()):
        await until_error(ours, reason)
        found = await contents(ours, "")
        mine = {key for key in found if not key.startswith((schema.CACHES, schema.SYNCED))}
        config, status = schema.cluster_config("west"), schema.mesh_status("west")
        assert mine == {schema.LEADER, config, status}

        liar.watches.clear()
        await status_when(ours, lambda status: status.ready, timeout=20)
        assert await contents(ours, schema.CACHES) == as_mirrored(HONEST)


async def test_a_fault_of_our_own_while_reading_a_remote_stays_that_remotes_problem(
    liar: Impostor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bulkhead behind all the checks: no remote ends the leader's agent."""
    ours = MemoryKV()

    async def faulty(*_: Any) -> Any:
        raise IndexError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr("meshnet.mesh.reader.RemoteReader.session", faulty)
        async with mirroring(ours, await lead(ours), lambda _: liar.kv()):
            await until_error(ours, "fault while reading it: IndexError('a bug')")
            await asyncio.sleep(0)
