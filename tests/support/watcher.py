"""Runs inside an endpoint: one datagram a millisecond to a port that answers, until told to stop.

`watcher.py ADDRESS PORT allowed|denied` prints `ready`, and after a line on stdin how many it sent
and how many were answered. Allowed: each is waited for. Denied: none is, and any answer counts,
a second after the last one was sent too. Only the standard library.
"""

from __future__ import annotations

import select
import socket
import sys
import time

FLOW = 50
"""Datagrams of one socket: then a new flow, which is judged for the first time."""
LONGEST_S = 2.0
LAST_ANSWERS_S = 1.0


def readable(what: object, wait_s: float = 0.0) -> bool:
    return bool(select.select([what], [], [], wait_s)[0])


def watch(address: str, port: int, *, allowed: bool) -> tuple[int, int]:
    sent = answered = 0
    end = None
    flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while end is None or time.monotonic() < end:
        if end is None and readable(sys.stdin):
            sys.stdin.readline()
            end = time.monotonic() + LAST_ANSWERS_S
        if end is None:
            if sent % FLOW == 0:
                flow.close()
                flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            flow.sendto(b"?", (address, port))
            sent += 1
            if allowed and readable(flow, LONGEST_S):
                flow.recv(9)
                answered += 1
        time.sleep(0.001)
        while not allowed and readable(flow):
            flow.recv(9)
            answered += 1
    return sent, answered


def main() -> None:
    print("ready", flush=True)
    address, port, kind = sys.argv[1:]
    print(*watch(address, int(port), allowed=kind == "allowed"), flush=True)


if __name__ == "__main__":
    main()
