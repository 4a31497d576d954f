"""A host outside of the mesh, behind a router: `west` of two_nodes, which forwards for it.

east-web ── east 192.0.2.1 ══ 192.0.2.2 west 198.51.100.1 ── server 198.51.100.7
                 2001:db8::1          2001:db8:ffff::1               2001:db8:ffff::7
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import attrs

from tests.support.bpf import run
from tests.support.two_nodes import Pair, inside, two_nodes
from tests.support.world import POOL

SERVER = {4: "198.51.100.7", 6: "2001:db8:ffff::7"}
NODE = {4: "192.0.2.1", 6: "2001:db8::1"}
ROUTER = {4: "192.0.2.2", 6: "2001:db8::2"}
ECHO_PORT = 9000
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_runs = count()


@attrs.frozen
class Outside:
    pair: Pair
    server: str
    """Its namespace."""

    @property
    def endpoint(self) -> str:
        return self.pair.east.endpoint

    @property
    def node(self) -> str:
        return self.pair.east.name

    def drops(self) -> list[str]:
        return self.pair.drops(self.pair.east)

    def counters(self) -> dict[str, int]:
        return self.pair.counters(self.pair.east)

    def narrow(self, mtu: int) -> None:
        """The last link, and the server offers segments that do not pass it."""
        run(f"ip -n {self.pair.west.name} link set world mtu {mtu}")
        for gateway, segment in (("198.51.100.1", 1460), ("2001:db8:ffff::1", 1440)):
            route = f"default via {gateway} mtu {mtu} advmss {segment}"
            run(f"ip -n {self.server} route replace {route}")


@contextlib.contextmanager
def outside(directory: Path) -> Iterator[Outside]:
    with two_nodes(directory) as pair:
        server = f"bpf{os.getpid()}-{next(_runs)}-server"
        try:
            _connect(pair, server)
            pair.travel_over(4)
            pair.reconfigure(pair.east, masquerade_ports=POOL)
            yield Outside(pair, server)
        finally:
            subprocess.run(["ip", "netns", "del", server], check=False, capture_output=True)


def _connect(pair: Pair, server: str) -> None:
    east, west, inner = (f"ip -n {name}" for name in (pair.east.name, pair.west.name, server))
    for command in (
        f"ip netns add {server}",
        f"{west} link add world type veth peer name eth0 netns {server}",
        f"{west} link set world up",
        f"{west} addr add 198.51.100.1/24 dev world",
        f"{west} addr add 2001:db8:ffff::1/64 dev world nodad",
        f"{inner} link set lo up",
        f"{inner} link set eth0 up",
        f"{inner} addr add {SERVER[4]}/24 dev eth0",
        f"{inner} addr add {SERVER[6]}/64 dev eth0 nodad",
        f"{inner} route add default via 198.51.100.1",
        f"{inner} route add default via 2001:db8:ffff::1",
        f"{east} route add default via {ROUTER[4]}",
        f"{east} route add default via {ROUTER[6]}",
    ):
        run(command)


@attrs.define
class Echo:
    """Sends back what it gets, and remembers who sent it."""

    seen: list[tuple[str, int]] = attrs.field(factory=list)


@contextlib.contextmanager
def echoing(namespace: str, address: str, *, kind: socket.SocketKind) -> Iterator[Echo]:
    """One connection after the other, or datagrams, while the block runs."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(namespace):
        listener = socket.socket(family, kind)
    echo, stopping = Echo(), threading.Event()
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, ECHO_PORT))
        listener.settimeout(0.1)
        if kind is socket.SOCK_STREAM:
            listener.listen()
        serve = _serve_stream if kind is socket.SOCK_STREAM else _serve_datagrams
        thread = threading.Thread(target=serve, args=(listener, echo, stopping))
        thread.start()
        try:
            yield echo
        finally:
            stopping.set()
            thread.join(timeout=30)


def _serve_stream(listener: socket.socket, echo: Echo, stopping: threading.Event) -> None:
    while not stopping.is_set():
        try:
            connection, peer = listener.accept()
        except TimeoutError:
            continue
        echo.seen.append(peer[:2])
        with connection:
            connection.settimeout(20)
            while data := connection.recv(1 << 16):
                connection.sendall(data)


def _serve_datagrams(listener: socket.socket, echo: Echo, stopping: threading.Event) -> None:
    while not stopping.is_set():
        try:
            data, peer = listener.recvfrom(1 << 16)
        except TimeoutError:
            continue
        echo.seen.append(peer[:2])
        listener.sendto(data, peer)
