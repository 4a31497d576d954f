"""bpf(2), by ctypes: the call itself, pins and maps. Programs and links: programs.py.

The only place that makes the system call. Answers that a caller expects (no such key, no
such pin) are None or False; what an operator must act on is CapabilityMissing; a full map
is MapFull; anything else is DatapathError with the command's name and the errno's text.
Struct layouts: union bpf_attr in include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import platform
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from meshnet.dataplane.schema import MapSpec, MapType, possible_cpus
from meshnet.errors import CapabilityMissing, DatapathError, MapFull

_libc = ctypes.CDLL(None, use_errno=True)
_BPF_FS_MAGIC = 0xCAFE4A11
_SYSCALL = {"x86_64": 321, "aarch64": 280}

BATCH = 4096
"""Rows a batched call carries: 0.5 us a row, and no second without the interpreter."""


class Command(enum.IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    MAP_DELETE = 3
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    OBJ_INFO = 15
    MAP_FREEZE = 22
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    ENABLE_STATS = 32


def _syscall(command: int, attribute: ctypes.Array[ctypes.c_char], size: int) -> int:
    """The bare call. Raises OSError."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise CapabilityMissing(
            f"meshnet does not know bpf(2) on {platform.machine()}: x86_64 or aarch64 is needed"
        )
    result: int = _libc.syscall(number, command, attribute, size)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def call(command: Command, *parts: object, format: str) -> tuple[int, bytes]:
    """Returns the result and the attribute as the kernel left it. Raises OSError."""
    attribute = ctypes.create_string_buffer(struct.pack(format, *parts))
    size = struct.calcsize(format)
    return _syscall(command, attribute, size), attribute.raw[:size]


def refusal(command: Command, error: OSError) -> DatapathError | CapabilityMissing:
    """The error that an operator can act on."""
    if error.errno == errno.EPERM:
        return CapabilityMissing(
            f"the kernel refused bpf({command.name}): CAP_BPF and CAP_NET_ADMIN are needed, "
            "so run as root with both in the bounding set"
        )
    if error.errno == errno.ENOSYS:
        return CapabilityMissing(
            "this kernel has no bpf(2): a kernel with CONFIG_BPF_SYSCALL, 6.6 or newer, is needed"
        )
    return DatapathError(f"bpf({command.name}) failed: {error.strerror}")


def address_of(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, max(len(data), 1))


def check_file_system(directory: Path) -> None:
    """Raises CapabilityMissing when nothing can be pinned there: pinning would say EPERM."""
    status = ctypes.create_string_buffer(256)
    _libc.statfs(os.fsencode(directory), status)
    if struct.unpack_from("=q", status)[0] != _BPF_FS_MAGIC:
        raise CapabilityMissing(
            f"{directory} is not in a bpf file system: mount one with "
            "`mount -t bpf bpf /sys/fs/bpf`"
        )


def pin(fd: int, path: Path) -> None:
    """Keep an object alive under a name in bpffs."""
    name = buffer(os.fsencode(path) + b"\0")
    try:
        call(Command.OBJ_PIN, address_of(name), fd, 0, format="=QII")
    except OSError as error:
        raise refusal(Command.OBJ_PIN, error) from error


def open_pin(path: Path) -> int | None:
    """A file descriptor for what is pinned there; None when nothing is."""
    name = buffer(os.fsencode(path) + b"\0")
    try:
        return call(Command.OBJ_GET, address_of(name), 0, 0, format="=QII")[0]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal(Command.OBJ_GET, error) from error


def info(fd: int, size: int) -> bytes:
    room = ctypes.create_string_buffer(size)
    try:
        call(Command.OBJ_INFO, fd, size, address_of(room), format="=IIQ")
    except OSError as error:
        raise refusal(Command.OBJ_INFO, error) from error
    return room.raw


class Map:
    """A map by its file descriptor, in bytes. Owns the descriptor."""

    def __init__(self, fd: int, spec: MapSpec) -> None:
        self.fd = fd
        self.spec = spec
        per_cpu = spec.type is MapType.PERCPU_ARRAY
        self._value_size = (
            (spec.value_size + 7) // 8 * 8 * possible_cpus() if per_cpu else spec.value_size
        )

    @classmethod
    def create(cls, spec: MapSpec) -> Map:
        kind, key, value, entries, flags = spec.shape
        name = spec.name[:15].encode()
        try:
            fd, _ = call(
                Command.MAP_CREATE, kind, key, value, entries, flags, 0, 0, name, format="=7I16s"
            )
        except OSError as error:
            raise refusal(Command.MAP_CREATE, error) from error
        return cls(fd, spec)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """As the kernel has it; compare with the spec's before use."""
        kind, _, key, value, entries, flags = struct.unpack_from("=6I", info(self.fd, 88))
        return (kind, key, value, entries, flags)

    @property
    def id(self) -> int:
        """The kernel's number of it, never used twice in one boot."""
        number: int = struct.unpack_from("=II", info(self.fd, 88))[1]
        return number

    @property
    def zero(self) -> bytes:
        """A value of zeros; of a per-CPU map, for all CPUs."""
        return bytes(self._value_size)

    def close(self) -> None:
        """Repeating it does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def freeze(self) -> None:
        """No write by system call from now on, so the verifier may rely on the values."""
        try:
            call(Command.MAP_FREEZE, self.fd, format="=I")
        except OSError as error:
            raise refusal(Command.MAP_FREEZE, error) from error

    def _refusal(self, command: Command, error: OSError) -> Exception:
        if command in (Command.MAP_UPDATE, Command.MAP_UPDATE_BATCH) and error.errno in (
            errno.E2BIG,
            errno.ENOSPC,
        ):
            return MapFull(self.spec.name, capacity=self.spec.max_entries)
        return refusal(command, error)

    def lookup(self, key: bytes) -> bytes | None:
        """The value (of a per-CPU map: all values, each padded to 8 bytes), or None."""
        room, found = ctypes.create_string_buffer(self._value_size), buffer(key)
        try:
            call(
                Command.MAP_LOOKUP,
                self.fd,
                address_of(found),
                address_of(room),
                0,
                format="=IxxxxQQQ",
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refusal(Command.MAP_LOOKUP, error) from error
        return room.raw

    def update(self, key: bytes, value: bytes) -> None:
        """Raises MapFull when there is no room for one more key."""
        k, v = buffer(key), buffer(value)
        try:
            call(Command.MAP_UPDATE, self.fd, address_of(k), address_of(v), 0, format="=IxxxxQQQ")
        except OSError as error:
            raise self._refusal(Command.MAP_UPDATE, error) from error

    def delete(self, key: bytes) -> bool:
        """Whether it was there."""
        k = buffer(key)
        try:
            call(Command.MAP_DELETE, self.fd, address_of(k), 0, 0, format="=IxxxxQQQ")
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._refusal(Command.MAP_DELETE, error) from error
        return True

    def update_many(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Batched. On MapFull the rows before the one that did not fit are written."""
        todo = iter(rows)
        while batch := list(islice(todo, BATCH)):
            keys = buffer(b"".join(key for key, _ in batch))
            values = buffer(b"".join(value for _, value in batch))
            try:
                call(
                    Command.MAP_UPDATE_BATCH, 0, 0, address_of(keys), address_of(values),
                    len(batch), self.fd, 0, 0, format="=QQQQIIQQ",
                )  # fmt: skip
            except OSError as error:
                raise self._refusal(Command.MAP_UPDATE_BATCH, error) from error

    def delete_many(self, keys: Iterable[bytes]) -> None:
        """Batched. What is absent is not an error."""
        todo = iter(keys)
        while batch := list(islice(todo, BATCH)):
            while batch:
                batch = batch[self._delete_batch(batch) :]

    def _delete_batch(self, keys: list[bytes]) -> int:
        """How many of them are settled: the kernel stops at one that is absent."""
        flat = buffer(b"".join(keys))
        attribute = ctypes.create_string_buffer(
            struct.pack("=QQQQIIQQ", 0, 0, address_of(flat), 0, len(keys), self.fd, 0, 0)
        )
        try:
            _syscall(Command.MAP_DELETE_BATCH, attribute, 56)
        except FileNotFoundError:
            (deleted,) = struct.unpack_from("=I", attribute, 32)
            return int(deleted) + 1
        except OSError as error:
            raise self._refusal(Command.MAP_DELETE_BATCH, error) from error
        return len(keys)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every row, 0.3 us each. Rows that change meanwhile may be missed or come twice."""
        key_size, value_size = self.spec.key_size, self._value_size
        for keys, values, count in self.batches():
            for place in range(count):
                yield (
                    keys[place * key_size : (place + 1) * key_size],
                    values[place * value_size : (place + 1) * value_size],
                )

    def count(self) -> int:
        """How many rows there are, without making an object of each."""
        return sum(count for _, _, count in self.batches())

    def batches(self) -> Iterator[tuple[bytes, bytes, int]]:
        """(keys, values, rows), as the kernel gave them: one after another, with room left."""
        room = BATCH
        last: ctypes.Array[ctypes.c_char] | None = None
        done = False
        while not done:
            keys = ctypes.create_string_buffer(self.spec.key_size * room)
            values = ctypes.create_string_buffer(self._value_size * room)
            token = ctypes.create_string_buffer(max(self.spec.key_size, 8))
            done, count, grow = self._lookup_batch(last, token, keys, values, room)
            if grow:
                room *= 2
                continue
            yield keys.raw, values.raw, count
            last = token

    def _lookup_batch(
        self,
        last: ctypes.Array[ctypes.c_char] | None,
        token: ctypes.Array[ctypes.c_char],
        keys: ctypes.Array[ctypes.c_char],
        values: ctypes.Array[ctypes.c_char],
        room: int,
    ) -> tuple[bool, int, bool]:
        """(that was the last batch, rows in it, a bucket needs more room than given)."""
        attribute = ctypes.create_string_buffer(
            struct.pack(
                "=QQQQIIQQ", address_of(last) if last else 0, address_of(token), address_of(keys),
                address_of(values), room, self.fd, 0, 0,
            )
        )  # fmt: skip
        done = False
        try:
            _syscall(Command.MAP_LOOKUP_BATCH, attribute, 56)
        except FileNotFoundError:
            done = True
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return False, 0, True
            raise self._refusal(Command.MAP_LOOKUP_BATCH, error) from error
        (count,) = struct.unpack_from("=I", attribute, 32)
        return done, count, False
