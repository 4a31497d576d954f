"""Many small HTTP requests at a steady rate, each on a connection of its own.

    python requests.py HOST PORT RATE SECONDS

prints one JSON line: `[[begun, took, backend or null], ...]`, times in seconds of
CLOCK_MONOTONIC. Run inside an endpoint. A request that has no whole answer after a second
has failed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

TIMEOUT_S = 1.0


async def ask(host: str, port: int) -> str | None:
    """The first line of the answer's body; None when there is none."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    return body.decode().strip() if b" 200 " in head.partition(b"\r\n")[0] else None


async def main(host: str, port: int, rate: float, seconds: float) -> None:
    done: list[tuple[float, float, str | None]] = []

    async def one() -> None:
        begun = time.monotonic()
        backend = await ask(host, port)
        done.append((begun, time.monotonic() - begun, backend))

    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            tasks.create_task(one())
    print(json.dumps(done))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
