"""The ring buffer of drop events, read through mmap: 1 us an event, no system call.

Layout of the mapping: one page with the consumer's position (ours to write), one with the
producer's, then the data twice in a row so that a record never wraps (Documentation/bpf/
ringbuf.rst). A record has an 8-byte header: its length with the bits BUSY and DISCARD.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

from meshnet.dataplane import abi, rows
from meshnet.dataplane.bpf import Map
from meshnet.model.dataplane import DropEvent

_POSITION = struct.Struct("=Q")
_HEADER = struct.Struct("=I")
_BUSY, _DISCARD = 1 << 31, 1 << 30
_HEADER_SIZE = 8


class EventRing:
    """The one consumer of `events`. `fd` is readable when there is something."""

    def __init__(self, events: Map) -> None:
        self.fd = events.fd
        self._mask = events.spec.max_entries - 1
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(self.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(
            self.fd,
            page + 2 * events.spec.max_entries,
            mmap.MAP_SHARED,
            mmap.PROT_READ,
            offset=page,
        )

    def read(self) -> list[DropEvent]:
        """Everything that is complete by now, oldest first."""
        return [unpack_event(data) for data in self._records()]

    def _records(self) -> Iterator[bytes]:
        (position,) = _POSITION.unpack_from(self._consumer)
        (end,) = _POSITION.unpack_from(self._producer)
        while position < end:
            start = mmap.PAGESIZE + (position & self._mask)
            (header,) = _HEADER.unpack_from(self._producer, start)
            if header & _BUSY:
                return
            length = header & ~_DISCARD
            if not header & _DISCARD:
                yield self._producer[start + _HEADER_SIZE : start + _HEADER_SIZE + length]
            position += (length + _HEADER_SIZE + 7) & ~7
            _POSITION.pack_into(self._consumer, 0, position)

    @property
    def unread_bytes(self) -> int:
        (position,) = _POSITION.unpack_from(self._consumer)
        (end,) = _POSITION.unpack_from(self._producer)
        return int(end - position)

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()


def unpack_event(data: bytes) -> DropEvent:
    row = rows.unpack(abi.Event, data)
    return DropEvent(
        time_ns=row.time_ns,
        reason=abi.DropReason(row.reason).name,
        direction=abi.Direction(row.direction).name.lower(),
        source_identity=row.source_identity,
        destination_identity=row.destination_identity,
        source=rows.unpack_address(bytes(row.source)),
        destination=rows.unpack_address(bytes(row.destination)),
        source_port=row.source_port,
        destination_port=row.destination_port,
        protocol=row.protocol,
        length=row.length,
        ifindex=row.ifindex,
        file=bytes(row.file).rstrip(b"\0").decode(),
        line=row.line,
        rule=row.rule,
        verdict="AUDIT" if row.verdict == abi.Verdict.AUDIT else "DROPPED",
    )
