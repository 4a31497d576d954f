"""Datagram sockets of a real namespace are found by cookie and peer, and destroyed."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from meshnet.errors import NotFound
from meshnet.host.namespace import Namespace, enter_path
from meshnet.model.service import BackendAddress, Protocol
from meshnet.netlink.sockets import destroy_datagram

NAME = f"lbx-sockets-{os.getpid()}"
PATH = f"/run/netns/{NAME}"
SO_COOKIE = 57


@pytest.fixture
def netns() -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    subprocess.run(["ip", "-n", NAME, "link", "set", "lo", "up"], check=True)
    yield PATH
    subprocess.run(["ip", "netns", "del", NAME], check=True)


def connected(host: str, port: int) -> socket.socket:
    """A datagram socket made in the namespace."""
    made: list[socket.socket] = []

    def make() -> None:
        enter_path(PATH, Namespace.NET)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made.append(socket.socket(family, socket.SOCK_DGRAM))
        made[0].connect((host, port))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def cookie(opened: socket.socket) -> int:
    (number,) = struct.unpack("=Q", opened.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))
    return int(number)


def peer(host: str, port: int) -> BackendAddress:
    return BackendAddress(ip_address(host), port, Protocol.UDP)


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.2", "127.0.0.2"), ("::1", "::1"), ("::ffff:127.0.0.2", "127.0.0.2")],
)
async def test_a_blocked_reader_is_told_and_may_connect_again(
    netns: str, host: str, address: str
) -> None:
    with connected(host, 5300) as one, connected(host, 5300) as other:
        errors: list[int] = []

        def wait() -> None:
            try:
                one.recv(1)
            except OSError as error:
                errors.append(error.errno or 0)

        reader = threading.Thread(target=wait)
        reader.start()
        wanted = {cookie(one): peer(address, 5300)}
        assert await destroy_datagram(netns, wanted) == {cookie(one)}
        reader.join(10)
        assert errors == [errno.ECONNABORTED]
        one.connect((host, 5301))
        assert one.getpeername()[1] == 5301
        assert other.getpeername()[1] == 5300, "the same peer, and not asked about"


async def test_a_socket_that_talks_to_somebody_else_by_now_is_left_alone(netns: str) -> None:
    with connected("127.0.0.3", 5300) as one:
        assert await destroy_datagram(netns, {cookie(one): peer("127.0.0.2", 5300)}) == set()
        assert await destroy_datagram(netns, {cookie(one): peer("127.0.0.3", 5301)}) == set()
        assert await destroy_datagram(None, {cookie(one): peer("127.0.0.3", 5300)}) == set()
        assert one.getpeername() == ("127.0.0.3", 5300)


async def test_a_namespace_with_more_sockets_than_one_answer_has_room_for(netns: str) -> None:
    many = [connected("127.0.0.2", 5300) for _ in range(600)]
    try:
        wanted = {cookie(each): peer("127.0.0.2", 5300) for each in many}
        assert await destroy_datagram(netns, wanted) == set(wanted)
    finally:
        for each in many:
            each.close()


async def test_a_namespace_that_is_gone_is_named() -> None:
    with pytest.raises(NotFound, match="/run/netns/nobody does not exist"):
        await destroy_datagram("/run/netns/nobody", {})
