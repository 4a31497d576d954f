"""Riding over a restart of this cluster's own etcd, in the middle of what an operator asked for.

A request that has changed nothing yet may fail: its caller asks again. One that has changed
something may not be begun again from outside, where nobody knows how far it came.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from meshnet.errors import Unreachable

PATIENCE_S = 30.0
AGAIN_S = 0.2

T = TypeVar("T")


async def ride(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of `ask`, which is called again while etcd is away.

    Args:
        ask: may have taken effect without an answer; calling it again must be harmless then.

    Raises:
        Unreachable: etcd stayed away for PATIENCE_S. Not as `own_etcd`: nobody shall repeat it.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await ask()
        except Unreachable as error:
            if time.monotonic() >= deadline:
                raise Unreachable(
                    f"{error} (for {PATIENCE_S:g} s): what was asked for may be done, in part or "
                    "whole: look before you ask again"
                ) from error
        await asyncio.sleep(AGAIN_S)
