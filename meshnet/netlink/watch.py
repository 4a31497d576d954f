"""News of links, addresses and routes: that something changed, not what.

Who is told looks at the state again, so a message that was lost costs nothing once a later
one arrives, and an overflow of the socket is news too. Formats: rtnetlink(7),
include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable

from meshnet.model.kernel import ENDPOINT_IFNAME_PREFIX
from meshnet.netlink.api import RTPROTO_MESHNET

GROUPS = 0x1 | 0x10 | 0x100 | 0x40 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV6_IFADDR, IPV4_ROUTE, IPV6_ROUTE."""
MAIN_TABLE = 254
NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE = 16, 17, 20, 21, 24, 25
_HEADER = struct.Struct("=IHHII")
_LINK_NAME = _HEADER.size + 16 + 4
"""Where a link's name begins: after ifinfomsg, as its first attribute."""


def open_socket() -> socket.socket:
    """In the calling thread's network namespace, where it stays."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    opened.setblocking(False)
    opened.bind((0, GROUPS))
    return opened


async def follow(opened: socket.socket, changed: Callable[[], None]) -> None:
    """Never returns."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await loop.sock_recv(opened, 1 << 16)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            changed()
            continue
        if matters(data):
            changed()


def matters(data: bytes) -> bool:
    """Whether one of these messages is of something that we did not make ourselves."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return True  # not rtnetlink as we know it: better to look
        if _is_foreign(kind, data[:length]):
            return True
        data = data[(length + 3) & ~3 :]
    return False


def _is_foreign(kind: int, message: bytes) -> bool:
    if kind in (NEWLINK, DELLINK):
        return not message[_LINK_NAME:].startswith(ENDPOINT_IFNAME_PREFIX.encode())
    if kind in (NEWROUTE, DELROUTE):
        table, protocol = message[_HEADER.size + 4], message[_HEADER.size + 5]
        return table == MAIN_TABLE and protocol != RTPROTO_MESHNET
    return kind in (NEWADDR, DELADDR)
