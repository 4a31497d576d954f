"""The reconcile loop: nothing is lost, failures are retried, bugs are not hidden."""

import asyncio

import pytest

from meshnet.agent.loop import Loop
from meshnet.errors import Unreachable


async def _run_until(loop: Loop, condition: asyncio.Event) -> None:
    task = asyncio.create_task(loop.run())
    try:
        async with asyncio.timeout(5):
            await condition.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_loop_passes_once_at_start_without_a_trigger() -> None:
    passed = asyncio.Event()

    async def reconcile() -> None:
        passed.set()

    await _run_until(Loop("x", reconcile), passed)


async def test_triggers_during_a_pass_lead_to_exactly_one_more_pass() -> None:
    passes = 0
    quiet = asyncio.Event()

    async def reconcile() -> float | None:
        nonlocal passes
        passes += 1
        if passes == 1:
            for _ in range(10):
                loop.trigger()
                await asyncio.sleep(0)
            return None
        if passes == 2:
            return 0.05
        quiet.set()
        return None

    loop = Loop("x", reconcile)
    await _run_until(loop, quiet)
    assert passes == 3, "ten triggers made one pass, the third came by time alone"


async def test_a_transient_failure_is_shown_and_retried_until_it_is_over() -> None:
    shown: list[str | None] = []
    healed = asyncio.Event()

    async def reconcile() -> float | None:
        shown.append(loop.status.error)
        if len(shown) < 3:
            raise Unreachable("etcd at 127.0.0.1:2379 refused the connection")
        if len(shown) == 4:
            healed.set()
        return 0.01

    loop = Loop("x", reconcile)
    await _run_until(loop, healed)
    refused = "etcd at 127.0.0.1:2379 refused the connection"
    assert shown == [None, refused, refused, None]
    assert loop.status.failures == 0


async def test_several_refusals_of_one_pass_are_all_shown() -> None:
    shown = asyncio.Event()

    async def reconcile() -> None:
        shown.set()
        raise ExceptionGroup("pass", [Unreachable("one"), ExceptionGroup("", [Unreachable("two")])])

    loop = Loop("x", reconcile)
    await _run_until(loop, shown)
    assert loop.status.error == "one; two"


async def test_a_programming_error_ends_the_loop() -> None:
    async def reconcile() -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await Loop("x", reconcile).run()


async def test_a_programming_error_beside_a_refusal_ends_the_loop_too() -> None:
    async def reconcile() -> None:
        raise ExceptionGroup("pass", [Unreachable("one"), KeyError("bug")])

    with pytest.raises(ExceptionGroup):
        await Loop("x", reconcile).run()
