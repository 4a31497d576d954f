"""Hear the UDP datagrams of one port as they come in from the wire.

An AF_PACKET socket (packet(7)) sees a packet before tcx programs and netfilter do, as the
dataplane does itself: what a host's own firewall says of the port does not matter to either.
The kernel's filter passes that port alone, so a busy interface costs little; close it soon.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Iterator

import attrs

ETH_P_ALL = 0x0003
SO_ATTACH_FILTER = 26
PACKET_OUTGOING = 4


@attrs.frozen
class Datagram:
    source: str
    payload: bytes


@contextlib.contextmanager
def tap(ifname: str, port: int) -> Iterator[socket.socket]:
    """A non-blocking socket whose packets begin with their IP header. Raises OSError."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        sock.setblocking(False)
        instructions = _filter(port)
        buffer = ctypes.create_string_buffer(instructions)
        program = struct.pack("HL", len(instructions) // 8, ctypes.addressof(buffer))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        sock.bind((ifname, ETH_P_ALL))  # only now does it hear anything
        yield sock


def read(packet: bytes) -> Datagram | None:
    """The UDP datagram in an IP packet without options or extensions; None: something else."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 28 and packet[0] & 15 == 5 and packet[9] == 17:
        (length,) = struct.unpack_from("!H", packet, 24)
        return Datagram(socket.inet_ntop(socket.AF_INET, packet[12:16]), packet[28 : 20 + length])
    if version == 6 and len(packet) >= 48 and packet[6] == 17:
        (length,) = struct.unpack_from("!H", packet, 44)
        return Datagram(socket.inet_ntop(socket.AF_INET6, packet[8:24]), packet[48 : 40 + length])
    return None


def _filter(port: int) -> bytes:
    """Classic BPF (Linux: Documentation/networking/filter.rst): UDP to that port, else nothing."""
    load_byte, load_half, load_half_x, header_length_x = 0x30, 0x28, 0x48, 0xB1
    jump_equal, mask, answer = 0x15, 0x54, 0x06
    program = (  # code, jump if true, jump if false, constant
        (load_byte, 0, 0, 0),
        (mask, 0, 0, 0xF0),
        (jump_equal, 0, 5, 0x40),
        (load_byte, 0, 0, 9),
        (jump_equal, 0, 9, socket.IPPROTO_UDP),
        (header_length_x, 0, 0, 0),
        (load_half_x, 0, 0, 2),
        (jump_equal, 5, 6, port),
        (jump_equal, 0, 5, 0x60),
        (load_byte, 0, 0, 6),
        (jump_equal, 0, 3, socket.IPPROTO_UDP),
        (load_half, 0, 0, 42),
        (jump_equal, 0, 1, port),
        (answer, 0, 0, 0xFFFF),
        (answer, 0, 0, 0),
    )
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
