"""Runs inside an endpoint, or on a host: serves, and probes many targets at once when told.

Each line of stdin is a list of probes, each line of stdout the answers:
[{"protocol": "tcp", "to": "10.1.0.5", "port": 80, "from": null, "wait_s": 0.4}] -> [true]
True: something came back. Only the standard library: it runs wherever Python does.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
import threading
import time
from typing import Any

TCP_PORTS = (80, 81, 8080, 9090)
UDP_PORTS = (5300, 5400)
"""Not 53: on a node its resolver has that."""
AGAIN_S = 0.25
"""A datagram without an answer is sent again."""


def serve() -> None:
    """Accept on every TCP port, echo on every UDP port, both families."""
    selector = selectors.DefaultSelector()
    for port in TCP_PORTS:
        listener = socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64
        )
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, "tcp")
    for port in UDP_PORTS:
        for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            listener = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # the answer must come from the address that was asked
            listener.setsockopt(*_tell_destination(family), 1)
            listener.bind((anywhere, port))
            listener.setblocking(False)
            selector.register(listener, selectors.EVENT_READ, "udp")
    while True:
        for key, _ in selector.select():
            with contextlib.suppress(OSError):
                if key.data == "tcp":
                    key.fileobj.accept()[0].close()  # type: ignore[union-attr]
                else:
                    _echo(key.fileobj)


def _tell_destination(family: int) -> tuple[int, int]:
    if family == socket.AF_INET:
        return socket.IPPROTO_IP, 8  # IP_PKTINFO (ip(7))
    return socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO


def _echo(listener: Any) -> None:
    data, control, _, peer = listener.recvmsg(2048, 256)
    kept = [
        (level, kind, value)
        for level, kind, value in control
        if (level, kind) in ((socket.IPPROTO_IP, 8), (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO))
    ]
    answer = []
    for level, kind, value in kept:
        if level == socket.IPPROTO_IP:  # ifindex 0: by the routing table; the source is kept
            value = struct.pack("=I4s4s", 0, value[8:12], bytes(4))
        answer.append((level, kind, value))
    listener.sendmsg([data], answer, 0, peer)


class Probe:
    def __init__(self, wanted: dict[str, Any], number: int) -> None:
        self.protocol: str = wanted["protocol"]
        self.to: str = wanted["to"]
        self.port: int = wanted["port"]
        self.answered = False
        self.deadline = time.monotonic() + wanted["wait_s"]
        self.again = 0.0
        self.number = number
        self.family = socket.AF_INET6 if ":" in self.to else socket.AF_INET
        kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "icmp": socket.SOCK_RAW}
        proto = {"icmp": 58 if self.family == socket.AF_INET6 else 1}.get(self.protocol, 0)
        self.socket = socket.socket(self.family, kind[self.protocol], proto)
        self.socket.setblocking(False)
        if wanted.get("from"):
            self.socket.bind((wanted["from"], 0))
        self.failed = False

    def begin(self) -> None:
        try:
            if self.protocol == "tcp":
                self.socket.connect_ex((self.to, self.port))
            else:
                if self.protocol == "udp":
                    self.socket.connect((self.to, self.port))
                self.send()
        except OSError:
            self.failed = True

    def send(self) -> None:
        self.again = time.monotonic() + AGAIN_S
        with contextlib.suppress(OSError):
            if self.protocol == "udp":
                self.socket.send(b"?")
            elif self.protocol == "icmp":
                self.socket.sendto(self._echo_request(), (self.to, 0))

    def _echo_request(self) -> bytes:
        kind = 128 if self.family == socket.AF_INET6 else 8
        head = struct.pack("!BBHHH", kind, 0, 0, os.getpid() & 0xFFFF, self.number)
        total = sum(struct.unpack("!4H", head))
        total = (total & 0xFFFF) + (total >> 16)
        return struct.pack("!BBHHH", kind, 0, ~total & 0xFFFF, os.getpid() & 0xFFFF, self.number)

    def look(self) -> None:
        """After its socket woke up."""
        try:
            if self.protocol == "tcp":
                # refused is an answer too: the other end's stack has spoken
                error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self.answered = error in (0, 111)
                self.failed = not self.answered
            elif self.protocol == "udp":
                self.answered = self.socket.recv(64) == b"?"
            else:
                self._look_at_icmp(self.socket.recvfrom(2048))
        except BlockingIOError:
            pass
        except OSError:
            self.failed = self.protocol == "tcp"

    def _look_at_icmp(self, received: tuple[bytes, Any]) -> None:
        data, peer = received
        offset = 0 if self.family == socket.AF_INET6 else (data[0] & 15) * 4
        kind, _, _, number, sequence = struct.unpack_from("!BBHHH", data, offset)
        wanted = 129 if self.family == socket.AF_INET6 else 0
        ours = (kind, number, sequence) == (wanted, os.getpid() & 0xFFFF, self.number)
        self.answered = ours and peer[0] == self.to


def probe(wanted: list[dict[str, Any]], first: int) -> list[bool]:
    probes = [Probe(each, (first + place) & 0xFFFF) for place, each in enumerate(wanted)]
    selector = selectors.DefaultSelector()
    for each in probes:
        each.begin()
        mask = selectors.EVENT_WRITE if each.protocol == "tcp" else selectors.EVENT_READ
        selector.register(each.socket, mask, each)
    open_probes = list(probes)
    while open_probes:
        for key, _ in selector.select(0.02):
            key.data.look()
        now = time.monotonic()
        for each in open_probes:
            if each.protocol != "tcp" and not each.answered and now > each.again:
                each.send()
            if each.answered or each.failed or now > each.deadline:
                selector.unregister(each.socket)
                each.socket.close()
        open_probes = [e for e in open_probes if not (e.answered or e.failed or now > e.deadline)]
    return [each.answered for each in probes]


def main() -> None:
    threading.Thread(target=serve, daemon=True).start()
    print("ready", flush=True)
    count = 0
    for line in sys.stdin:
        wanted = json.loads(line)
        print(json.dumps(probe(wanted, count)), flush=True)
        count += len(wanted)


if __name__ == "__main__":
    main()
