"""A table says what etcd has, and which keys it cannot use for as long as they are bad."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from meshnet.agent.problems import POISONED_SHOWN, of_tables
from meshnet.agent.seen import Table
from meshnet.errors import PoisonedKey
from meshnet.kvstore.memory import MemoryKV


def number(key: str, value: bytes) -> int:
    if not value.isdigit():
        raise PoisonedKey(key, f"expected a number, got {value!r}")
    return int(value)


@asynccontextmanager
async def following(
    kv: MemoryKV,
) -> AsyncIterator[tuple[Table[int], Callable[..., Awaitable[None]]]]:
    """The table, and a wait until it says something."""
    table = Table("n/", number)
    news = asyncio.Event()

    async def until(says: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not says():
                news.clear()
                await news.wait()

    task = asyncio.create_task(table.follow(kv, news.set))
    try:
        await until(lambda: table.synced)
        yield table, until
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("heal", ["corrected", "deleted"])
async def test_a_poisoned_key_is_named_until_it_is(heal: str) -> None:
    kv = MemoryKV()
    await kv.put("n/a", b"1")
    async with following(kv) as (table, until):
        await kv.put("n/a", b"x")
        await until(lambda: "n/a" in table.poisoned)
        assert table.items == {}
        if heal == "deleted":
            await kv.delete("n/a")
        else:
            await kv.put("n/a", b"2")
        await until(lambda: not table.poisoned)
        assert table.items == ({} if heal == "deleted" else {"n/a": 2})


async def test_a_key_deleted_while_nobody_watched_is_named_no_more_and_another_still_is() -> None:
    kv = MemoryKV()
    await kv.put("n/a", b"x")
    await kv.put("n/b", b"y")
    async with following(kv) as (table, until):
        assert table.poisoned.keys() == {"n/a", "n/b"}
        kv.disconnect("etcd at h:1 is unreachable")
        kv.reconnect()
        await kv.delete("n/a")
        await kv.put("n/c", b"3")
        kv.compact(await kv.revision())  # so that it must list again
        await until(lambda: "n/c" in table.items)
        assert table.poisoned == {"n/b": "expected a number, got b'y'"}


def test_problems_name_the_key_and_the_reason_and_not_without_end() -> None:
    table = Table("n/", number)
    table.poisoned = {f"n/{n:03}": "bad" for n in range(100)}
    problems = of_tables([table])
    assert len(problems) == POISONED_SHOWN
    assert problems[0].message == "n/000 is ignored: bad"
