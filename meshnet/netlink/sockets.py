"""Datagram sockets by sock_diag(7): which of a namespace's talk to a peer, and their end.

Formats: include/uapi/linux/inet_diag.h and sock_diag.h. The kernel needs CONFIG_INET_UDP_DIAG
and CONFIG_INET_DIAG_DESTROY. A destroyed socket's owner gets ECONNABORTED from the call that it
waits in or makes next (net/ipv4/udp.c: udp_abort); the socket may connect again afterwards.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from meshnet.errors import NetlinkRefused
from meshnet.model.addressing import Address
from meshnet.model.service import BackendAddress, Protocol
from meshnet.netlink import namespace

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
ERROR, DONE = 2, 3
CONNECTED = 1 << 1
"""TCP_ESTABLISHED, which a connected datagram socket is in, as a bit of idiag_states."""
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI48s")
"""inet_diag_req_v2: family, protocol, extensions, padding, states, inet_diag_sockid."""
_ID = struct.Struct("!2xH16x16s4x8s")
"""inet_diag_sockid: the peer's port and address, and the cookie (two words, the low one first)."""
_ID_AT = 4
"""Where inet_diag_msg has it."""

Wanted = Mapping[int, BackendAddress]
"""Socket cookie -> the peer that the socket must still have."""


async def destroy_datagram(netns: str | None, wanted: Wanted) -> set[int]:
    """Destroy those of these sockets that are in `netns` (a path; None: where we are) and
    connected to that peer; answers their cookies. Cost: 1 us for each connected datagram
    socket there.

    Raises:
        NetlinkRefused: the kernel cannot, or will not.
        NotFound, UsageError: there is no such namespace any more.
    """
    return await namespace.run_in(netns, lambda: _destroy(wanted))


def _destroy(wanted: Wanted) -> set[int]:
    ended = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as opened:
            opened.bind((0, 0))
            for family in (socket.AF_INET, socket.AF_INET6):
                for cookie, peer, identity in list(_connected(opened, family)):
                    if wanted.get(cookie) == peer and _end(opened, family, identity):
                        ended.add(cookie)
    except OSError as error:
        raise _refused(error.errno or 0) from error
    return ended


def _connected(opened: socket.socket, family: int) -> Iterator[tuple[int, BackendAddress, bytes]]:
    """(cookie, peer, inet_diag_sockid) of every connected datagram socket of a family."""
    for message in _ask(opened, SOCK_DIAG_BY_FAMILY, DUMP, family, bytes(_ID.size)):
        identity = message[_ID_AT : _ID_AT + _ID.size]
        port, raw, cookie = _ID.unpack(identity)
        low, high = struct.unpack("=II", cookie)
        yield high << 32 | low, BackendAddress(_address(family, raw), port, Protocol.UDP), identity


def _address(family: int, raw: bytes) -> Address:
    """Of an IPv6 socket that talks IPv4, the IPv4 address."""
    if family == socket.AF_INET:
        return IPv4Address(raw[:4])
    address = IPv6Address(raw)
    return address.ipv4_mapped or address


def _end(opened: socket.socket, family: int, identity: bytes) -> bool:
    """Whether it was there: who closed it meanwhile needs nothing."""
    try:
        list(_ask(opened, SOCK_DESTROY, ACK, family, identity))
    except NetlinkRefused as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def _ask(
    opened: socket.socket, kind: int, flags: int, family: int, identity: bytes
) -> Iterator[bytes]:
    """The bodies of the answers, to the last one."""
    body = _REQUEST.pack(family, socket.IPPROTO_UDP, 0, 0, CONNECTED, identity)
    opened.send(_HEADER.pack(_HEADER.size + len(body), kind, REQUEST | flags, 0, 0) + body)
    while True:
        data = opened.recv(1 << 16)
        while len(data) >= _HEADER.size:
            length, answer, *_ = _HEADER.unpack_from(data)
            message = data[_HEADER.size : length]
            if answer in (ERROR, DONE):
                _check(message)
                return
            yield message
            data = data[(length + 3) & ~3 :]


def _check(message: bytes) -> None:
    (code,) = struct.unpack_from("=i", message)
    if code:
        raise _refused(-code)


def _refused(code: int) -> NetlinkRefused:
    return NetlinkRefused("datagram sockets by sock_diag", code, os.strerror(code))
