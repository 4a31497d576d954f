"""Programs and their attachment: load, test-run, link. The other half of bpf.py."""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import platform
import struct
from pathlib import Path

import attrs

from meshnet.dataplane.bpf import Command, address_of, buffer, call, info, refusal
from meshnet.errors import CapabilityMissing, DatapathError, VerifierRejected


class ProgramType(enum.IntEnum):
    """enum bpf_prog_type."""

    SCHED_CLS = 3
    CGROUP_SOCK_ADDR = 18


LOG_MAX = 16 << 20
"""Bytes of verifier's log; a smaller buffer makes a valid program fail."""


class Attach(enum.IntEnum):
    """enum bpf_attach_type."""

    INET4_CONNECT = 10
    INET6_CONNECT = 11
    UDP4_SENDMSG = 14
    UDP6_SENDMSG = 15
    UDP4_RECVMSG = 19
    UDP6_RECVMSG = 20
    INET4_GETPEERNAME = 29
    INET6_GETPEERNAME = 30
    TCX_INGRESS = 46
    TCX_EGRESS = 47


SOCKET_HOOKS = {
    "sock_connect4": Attach.INET4_CONNECT,
    "sock_connect6": Attach.INET6_CONNECT,
    "sock_sendmsg4": Attach.UDP4_SENDMSG,
    "sock_sendmsg6": Attach.UDP6_SENDMSG,
    "sock_recvmsg4": Attach.UDP4_RECVMSG,
    "sock_recvmsg6": Attach.UDP6_RECVMSG,
    "sock_getpeername4": Attach.INET4_GETPEERNAME,
    "sock_getpeername6": Attach.INET6_GETPEERNAME,
}
"""Programs of a cgroup; all others are tc's. The kernel checks such a program for its hook."""


def load_program(name: str, instructions: bytes) -> int:
    """Have the verifier check a program, quietly first, and with its log on a refusal.

    Raises:
        VerifierRejected: with a one-line summary and the full log.
        CapabilityMissing: not allowed to load programs.
    """
    size, refused = 0, errno.EINVAL
    while size <= LOG_MAX:
        try:
            return _load(name, instructions, log_size=size)[0]
        except _Rejected as rejected:
            refused = rejected.code
            if size and rejected.code != errno.ENOSPC:
                raise VerifierRejected(name, summarize(rejected.log), rejected.log) from rejected
        size = size * 16 or 1 << 20
    raise VerifierRejected(name, f"{os.strerror(refused)}, and the log is over 16 MB", "")


class _Rejected(Exception):
    def __init__(self, code: int, log: str) -> None:
        super().__init__(os.strerror(code))
        self.code = code
        self.log = log


def _load(name: str, instructions: bytes, *, log_size: int) -> tuple[int, str]:
    hook = SOCKET_HOOKS.get(name)
    kind = ProgramType.SCHED_CLS if hook is None else ProgramType.CGROUP_SOCK_ADDR
    code, licence = buffer(instructions), buffer(b"Dual BSD/GPL\0")
    log = ctypes.create_string_buffer(max(log_size, 1))
    try:
        fd, _ = call(
            Command.PROG_LOAD, kind, len(instructions) // 8, address_of(code),
            address_of(licence), 1 if log_size else 0, log_size,
            address_of(log) if log_size else 0, 0, 0, name[:15].encode(),
            0, hook or 0, format="=IIQQIIQII16sII",
        )  # fmt: skip
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS):
            raise refusal(Command.PROG_LOAD, error) from error
        assert error.errno is not None
        raise _Rejected(error.errno, log.value.decode(errors="replace")) from error
    return fd, log.value.decode(errors="replace")


def summarize(log: str) -> str:
    """The verifier's verdict: its last telling line, with the instruction it is about."""
    lines = [line for line in log.splitlines() if line.strip()]
    while lines and lines[-1].startswith(("processed ", "verification time", "stack depth")):
        lines.pop()
    if not lines:
        return "the verifier gave no reason"
    about = next((line for line in reversed(lines[:-1]) if line[:1].isdigit()), "")
    return f"{lines[-1].strip()} (at {about.strip()})" if about else lines[-1].strip()


def program_id(fd: int) -> int:
    number: int = struct.unpack_from("=II", info(fd, 16))[1]
    return number


@attrs.frozen
class TestRun:
    """What a program did with one packet."""

    verdict: int
    """As a signed number: TC_ACT_UNSPEC is -1."""
    packet: bytes
    context: bytes
    """struct __sk_buff afterwards."""


def test_run(fd: int, packet: bytes, context: bytes = b"") -> TestRun:
    """Run a tc program on one frame (BPF_PROG_TEST_RUN); nothing is sent."""
    room, given = ctypes.create_string_buffer(len(packet) + 512), buffer(packet)
    before, after = buffer(context), ctypes.create_string_buffer(256)
    try:
        _, answer = call(
            Command.PROG_TEST_RUN, fd, 0, len(packet), len(room), address_of(given),
            address_of(room), 1, 0, len(context), len(after) if context else 0,
            address_of(before) if context else 0, address_of(after) if context else 0, 0, 0, 0, 0,
            format="=IIIIQQIIIIQQIIII",
        )  # fmt: skip
    except OSError as error:
        raise refusal(Command.PROG_TEST_RUN, error) from error
    _, verdict, _, length = struct.unpack_from("=IiII", answer)
    (context_length,) = struct.unpack_from("=I", answer, 44)
    return TestRun(verdict, room.raw[:length], after.raw[:context_length])


def counting_run_time() -> int:
    """As long as this descriptor is open, the kernel counts runs and run time of every program
    (about 20 ns a run): for benchmarks. Source: enum bpf_stats_type, BPF_STATS_RUN_TIME."""
    try:
        return call(Command.ENABLE_STATS, 0, format="=I")[0]
    except OSError as error:
        raise refusal(Command.ENABLE_STATS, error) from error


@attrs.frozen
class LinkInfo:
    program_id: int
    target: int
    """The interface, or the lower half of the cgroup's id; 0 when it is gone."""


def create_link(program: int, ifindex: int, attach: Attach) -> int:
    """Attach by tcx, in the current network namespace. Raises CapabilityMissing before 6.6."""
    try:
        fd, _ = call(Command.LINK_CREATE, program, ifindex, attach, 0, 0, 0, 0, format="=IIIIIIQ")
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise CapabilityMissing(
                f"kernel {platform.release()} has no tcx links: Linux 6.6 or newer is needed"
            ) from error
        if error.errno == errno.ENODEV:
            raise DatapathError(f"there is no interface {ifindex} to attach to") from error
        raise refusal(Command.LINK_CREATE, error) from error
    return fd


def create_cgroup_link(program: int, cgroup: Path, attach: Attach) -> int:
    """Attach to the sockets made by processes of a cgroup and of those below it. Several may be
    attached; sockets that are there already are served too."""
    target = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd, _ = call(Command.LINK_CREATE, program, target, attach, 0, 0, 0, 0, format="=IIIIIIQ")
    except OSError as error:
        raise refusal(Command.LINK_CREATE, error) from error
    finally:
        os.close(target)
    return fd


def update_link(link: int, program: int) -> None:
    """Swap the program; no packet sees neither or both."""
    try:
        call(Command.LINK_UPDATE, link, program, 0, 0, format="=IIII")
    except OSError as error:
        raise refusal(Command.LINK_UPDATE, error) from error


def link_info(link: int) -> LinkInfo:
    _, _, program, _, target, _ = struct.unpack_from("=6I", info(link, 64))
    return LinkInfo(program, target)
