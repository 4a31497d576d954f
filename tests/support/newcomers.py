"""Identities that never were before; each speaks the moment its endpoint may. Runs in a lab host.

python tests/support/newcomers.py ENDPOINTS ROUNDS PATIENCE_S LABELS ADDRESS PORT [ADDRESS PORT ...]

Each endpoint is made once, speaks, and gets other labels ROUNDS - 1 times, so that it has a new
identity each time, and speaks again. Who is not reached within PATIENCE_S is given up. LABELS are
JSON, and what all have in common. Prints, an object a line: the identity, the address, whether it
was reached, how many of its packets were sent again (a SYN that a policy dropped is), how long it
took until the endpoint was ready and until it was connected. Nothing of it is left in etcd.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from meshnet import config
from meshnet.bootstrap.init import open_etcd
from meshnet.cli.client import AgentClient
from meshnet.config import Paths
from meshnet.host.namespace import Namespace, enter_path
from meshnet.kvstore.api import Delete
from meshnet.registry import schema

TOTAL_RETRANS = 100
"""Where `struct tcp_info` (linux/tcp.h) counts all segments that were sent again, SYNs too."""

Target = tuple[str, int]
Row = dict[str, object]


def main(
    count: int, rounds: int, patience_s: float, labels: dict[str, str], targets: Sequence[Target]
) -> None:
    agent = AgentClient(Paths.from_environment())
    names = [f"newcomer-{number}" for number in range(count)]
    come = partial(newcomer, agent, rounds, patience_s, labels, targets)
    try:
        with ThreadPoolExecutor(count) as pool:
            rows = list(itertools.chain.from_iterable(pool.map(come, names)))
    finally:
        there = {row["name"] for row in agent.get("endpoints", scope="node")}
        for name in filter(there.__contains__, names):
            agent.delete("endpoints", "default", name)
    asyncio.run(forget({str(row["identity"]) for row in rows}))
    for row in rows:
        print(json.dumps(row))


def newcomer(
    agent: AgentClient,
    rounds: int,
    patience_s: float,
    labels: dict[str, str],
    targets: Sequence[Target],
    name: str,
) -> list[Row]:
    """One endpoint, in a thread of its own: it stays in that namespace to its end."""

    def speak(number: int) -> Iterator[Row]:
        began = time.monotonic()
        changed = {**labels, "name": f"{name}-{number}"}
        if number == 0:
            made = agent.post("endpoints", body={"name": name, "labels": changed})
            enter_path(made["netns"], Namespace.NET)
        else:
            made = agent.post("endpoints", "default", name, "amend", body={"labels": changed})
        ready_s = time.monotonic() - began
        for target in targets:
            yield {"identity": made["identity"], "ready_s": ready_s, **connect(target, patience_s)}

    return [row for number in range(rounds) for row in speak(number)]


def connect(target: Target, patience_s: float) -> Row:
    address, port = target
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as caller:
        caller.settimeout(patience_s)
        began = time.monotonic()
        try:
            caller.connect((address, port))
            reached = True
        except OSError:
            reached = False
        took_s = time.monotonic() - began
        info = caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TOTAL_RETRANS + 4)
    (again,) = struct.unpack_from("=I", info, TOTAL_RETRANS)
    return {"address": address, "reached": reached, "sent_again": again, "connected_s": took_s}


async def forget(numbers: set[str]) -> None:
    """What garbage collection would take in half an hour."""
    async with open_etcd(config.load(Paths.from_environment()).etcd) as kv:
        allocations = (await kv.list(schema.IDENTITY_ALLOCATIONS)).pairs
        keys = [pair.key for pair in allocations if pair.value.decode() in numbers]
        for key in (*keys, *map(schema.identity, numbers)):
            await kv.txn((), (Delete(key),))


if __name__ == "__main__":
    endpoints, rounds, patience_s, labels, *rest = sys.argv[1:]
    pairs = zip(rest[::2], rest[1::2], strict=True)
    main(
        int(endpoints),
        int(rounds),
        float(patience_s),
        json.loads(labels),
        [(host, int(port)) for host, port in pairs],
    )
