"""What the kernel and our permissions must allow, asked before anything is changed.

Each lack is a CapabilityMissing (exit code 6) that says what is missing and how to get it.
The questions are put through `Probes`, so that every answer can be tried without a kernel
that gives it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import attrs

from meshnet.errors import CapabilityMissing
from meshnet.host import cgroup
from meshnet.host.mount import mounts

BPFFS = Path("/sys/fs/bpf")

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
CAP_BPF = 39

# <linux/bpf.h>
BPF_PROG_LOAD = 5
BPF_LINK_CREATE = 28
BPF_PROG_TYPE_SCHED_CLS = 3
BPF_TCX_INGRESS = 46
BPF_INSN = b"\xb7\0\0\0\0\0\0\0" + b"\x95\0\0\0\0\0\0\0"
"""r0 = 0; exit"""
NO_SUCH_IFINDEX = 0x7FFFFFFF

_SYSCALL_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_libc = ctypes.CDLL(None, use_errno=True)


def effective_capabilities() -> int:
    """Source: proc(5), /proc/pid/status, CapEff."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    raise CapabilityMissing("/proc/self/status has no CapEff: is /proc mounted?")


def bpffs_is_usable() -> bool:
    if any(mount.filesystem == "bpf" and mount.target == BPFFS for mount in mounts()):
        return True
    listed = Path("/proc/filesystems").read_text().split()
    return "bpf" in listed and BPFFS.is_dir()


def tcx_answer() -> int:
    """The errno of a tcx link to an interface that cannot exist.

    A kernel with tcx (6.6 and later) looks for the interface: ENODEV. An older one does
    not know the attach type: EINVAL. Nothing is attached in either case.
    """
    licence = ctypes.create_string_buffer(b"GPL")
    code = ctypes.create_string_buffer(BPF_INSN)
    program = _bpf(
        BPF_PROG_LOAD,
        _words(4, BPF_PROG_TYPE_SCHED_CLS, len(BPF_INSN) // 8)
        + _words(8, ctypes.addressof(code), ctypes.addressof(licence)),
    )
    if program < 0:
        return -program
    try:
        link = _bpf(BPF_LINK_CREATE, _words(4, program, NO_SUCH_IFINDEX, BPF_TCX_INGRESS, 0))
    finally:
        os.close(program)
    return -link if link < 0 else 0


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2): a file descriptor, or a negative errno."""
    number = _SYSCALL_BPF.get(os.uname().machine)
    if number is None:
        raise CapabilityMissing(f"bpf(2) is not known for {os.uname().machine}: report this")
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = int(_libc.syscall(number, command, buffer, len(buffer)))
    return result if result >= 0 else -ctypes.get_errno()


def _words(size: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(size, sys.byteorder) for value in values)


@attrs.frozen(kw_only=True)
class Probes:
    """The questions. The defaults ask this kernel about this process."""

    user_id: Callable[[], int] = os.geteuid
    capabilities: Callable[[], int] = effective_capabilities
    """The effective set as a bit mask."""
    cgroup2: Callable[[], Path | None] = cgroup.find_hierarchy
    """Where cgroup v2 is mounted."""
    bpffs: Callable[[], bool] = bpffs_is_usable
    """It is mounted at /sys/fs/bpf, or the kernel has it."""
    tcx: Callable[[], int] = tcx_answer
    """The errno with which the kernel refuses a tcx link on an interface that does not exist."""


def require_all(probes: Probes = Probes()) -> None:
    """Everything that the agent needs.

    Raises:
        CapabilityMissing: the first lack, in the order in which one would repair them.
    """
    require_root(probes)
    have = probes.capabilities()
    for number, name in ((CAP_BPF, "CAP_BPF"), (CAP_NET_ADMIN, "CAP_NET_ADMIN")):
        # the kernel takes CAP_SYS_ADMIN for CAP_BPF, and for nothing else we need
        enough = 1 << number | (1 << CAP_SYS_ADMIN if number == CAP_BPF else 0)
        if not have & enough:
            raise CapabilityMissing(
                f"{name} is missing from this process's effective capabilities: add it to the "
                f"container or unit (`--cap-add {name[4:]}`, `AmbientCapabilities={name}`)"
            )
    require_cgroup2(probes)
    if not probes.bpffs():
        raise CapabilityMissing(
            f"bpffs is not mounted at {BPFFS} and cannot be: the kernel needs CONFIG_BPF_SYSCALL, "
            f"then `mount -t bpf bpf {BPFFS}`"
        )
    refusal = probes.tcx()
    if refusal != errno.ENODEV:
        release = os.uname().release
        raise CapabilityMissing(
            f"this kernel ({release}) cannot attach BPF by tcx links "
            f"({os.strerror(refusal)}): Linux 6.6 or later is needed"
        )


def require_root(probes: Probes = Probes()) -> None:
    if probes.user_id() != 0:
        raise CapabilityMissing(f"must be root, not uid {probes.user_id()}: run it with sudo")


def require_cgroup2(probes: Probes = Probes()) -> Path:
    """Where it is mounted."""
    found = probes.cgroup2()
    if found is None:
        raise CapabilityMissing(cgroup.MISSING)
    return found
