"""One lab host: init in its own network, mount, PID, UTS and cgroup namespaces.

    up ── builder ── init (`sleep infinity`, PID 1 of the host)
             │
             └─ the node's `exec` lines, once the links are there

The builder enters the host's cgroup before it makes anything and dies with `up` until the
host is done, so a crash leaves nothing that is not in that cgroup. Init ignores SIGCHLD,
so the kernel reaps orphans; its end is the end of everything in the host.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import attrs

from meshnet.errors import LabError, MeshnetError
from meshnet.host import namespace
from meshnet.host.cgroup import Cgroup
from meshnet.host.namespace import Namespace, unshare
from topology.model import LabNode
from topology.netns import root

EXEC_TIMEOUT_S = 120.0
NAMESPACES = Namespace.NET | Namespace.MOUNT | Namespace.UTS | Namespace.PID | Namespace.CGROUP

# <linux/prctl.h>, <linux/capability.h>
PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
MACHINE_CAPABILITIES = (16, 17, 22, 25, 27)
"""SYS_MODULE, SYS_RAWIO, SYS_BOOT, SYS_TIME, MKNOD: there is no namespace for what they touch."""

# <asm-generic/ioctls.h>
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441

FAULTY_CLOCK = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_CACHE_DURATION": "1"}
"""How a clock fault works, where there is one: see topology/faults/clock.py."""

_libc = ctypes.CDLL(None, use_errno=True)


@attrs.frozen(kw_only=True)
class HostPlan:
    lab: str
    node: LabNode
    cgroup: Cgroup
    cgroups: Path
    """Where the machine has cgroup2."""
    stage: Path
    env: Mapping[str, str]


def environment(lab: str, node: str, own: Mapping[str, str]) -> dict[str, str]:
    """What a command in a host sees: `meshnet` first on PATH, then the node's `env`."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "PATH": f"{Path(sys.prefix) / 'bin'}:{path}",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
        "MESHNET_LAB": lab,
        "MESHNET_LAB_NODE": node,
        **FAULTY_CLOCK,
        "MESHNET_CONNTRACK_ENTRIES": "16384",  # each host its own share of one machine's memory
        **own,
    }


def enter(init: int, cgroup: Cgroup) -> None:
    """Move the calling process into a host, all but its PID: its children have one there.

    Args:
        init: a pidfd of the host's init.

    Raises:
        NotFound: its init has ended.
    """
    cgroup.enter()
    namespace.enter(init, NAMESPACES)
    _drop_machine_capabilities()
    os.chdir("/")


def open_terminal(pid: int) -> tuple[int, int]:
    """Master and slave of a pseudo terminal that the host of that init knows as its own."""
    master = os.open(f"/proc/{pid}/root/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    return master, fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)


@attrs.define
class Builder:
    """The child that builds one host; talked to over two pipes, a line of JSON each."""

    plan: HostPlan
    _pid: int
    _told: int
    _go: int

    @classmethod
    def start(cls, plan: HostPlan) -> Builder:
        """Fork it. Only for a process without threads."""
        told_read, told_write = os.pipe()
        go_read, go_write = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            # other builders' pipes too: while we hold them, they never see `up` end
            keep = {go_read, told_write}
            _close_all_but(keep)
            _build(plan, parent, told=told_write, go=go_read)
        os.close(told_write)
        os.close(go_read)
        return cls(plan, pid, told_read, go_write)

    def await_init(self) -> int:
        """The PID of the host's init, once the host is there.

        Raises:
            LabError: it could not be made.
        """
        return int(self._answer()["pid"])

    def run_execs(self) -> None:
        """Let it run the node's `exec` lines; `await_execs` says how they went."""
        os.write(self._go, b"!")

    def await_execs(self) -> None:
        """Raises LabError: one failed; those after it did not run."""
        self._answer()

    def close(self) -> None:
        """Let it end. It ends by itself when its pipes are closed."""
        os.close(self._go)
        os.close(self._told)
        os.waitpid(self._pid, 0)

    def _answer(self) -> dict[str, Any]:
        line = b""
        while not line.endswith(b"\n"):
            chunk = os.read(self._told, 65536)
            if not chunk:
                raise LabError(f"node {self.plan.node.name!r}: its builder was killed")
            line += chunk
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LabError(f"node {self.plan.node.name!r}: {answer['error']}")
        return answer


def _build(plan: HostPlan, parent: int, *, told: int, go: int) -> NoReturn:
    """The builder's whole life."""
    try:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # `up` hears it, and takes us away
        plan.cgroup.enter()
        unshare(NAMESPACES)
        _tell(told, pid=_start_init(plan))
        if os.read(go, 1):
            _drop_machine_capabilities()
            time.sleep(plan.node.startup_delay_s)
            for line in plan.node.exec:
                _run(line, plan.env)
            _tell(told)
    except (OSError, MeshnetError) as error:
        _tell(told, error=str(error))
    finally:
        os._exit(0)


def _tell(told: int, **words: object) -> None:
    os.write(told, json.dumps(words).encode() + b"\n")


def _start_init(plan: HostPlan) -> int:
    """Returns its PID outside, once the host is built.

    Raises:
        LabError: it could not be built.
    """
    failed_read, failed_write = os.pipe()  # closed by a successful exec
    pid = os.fork()
    if pid == 0:
        _become_init(plan, failed_write)
    os.close(failed_write)
    with open(failed_read) as failed:
        reason = failed.read()
    if reason:
        raise LabError(reason)
    return pid


def _become_init(plan: HostPlan, failed: int) -> NoReturn:
    try:
        os.setsid()
        _set_hostname(plan.node.hostname)
        root.build(plan.stage, plan.node.hostname, plan.cgroups, plan.node.binds)
        for name, value in plan.node.sysctls.items():
            (Path("/proc/sys") / name.replace(".", "/")).write_text(value)
        _drop_machine_capabilities()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        _close_all_but({0, 1, 2, failed})
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.execve("/bin/sleep", ["sleep", "infinity"], dict(plan.env))
    except OSError as error:
        os.write(failed, f"{error.filename or 'init'}: {error.strerror}".encode())
    except BaseException as error:
        os.write(failed, repr(error).encode())
        raise
    finally:
        os._exit(1)


def _set_hostname(name: str) -> None:
    encoded = name.encode()
    if _libc.sethostname(encoded, len(encoded)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f"hostname {name}")


def _drop_machine_capabilities() -> None:
    for number in MACHINE_CAPABILITIES:
        # EINVAL, EPERM: this kernel or this process has not got it in the first place
        _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)


def _close_all_but(keep: set[int]) -> None:
    """Every descriptor but these and the standard three."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number not in keep:
            try:
                os.close(number)
            except OSError:  # that of the listing itself
                continue


def _run(line: str, env: Mapping[str, str]) -> None:
    """Run one `exec` line: words, no shell. What it leaves running stays running.

    Its output goes to a file: with a pipe, one that leaves a daemon would never end.
    """
    words = shlex.split(line)
    with tempfile.TemporaryFile() as output:
        try:
            status = subprocess.run(
                words,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                timeout=EXEC_TIMEOUT_S,
                check=False,
            ).returncode
        except FileNotFoundError as error:
            raise LabError(f"exec {line!r}: {words[0]}: command not found") from error
        except subprocess.TimeoutExpired as error:
            raise LabError(f"exec {line!r} did not end in {EXEC_TIMEOUT_S:.0f} s") from error
        if status:
            output.seek(0)
            said = output.read().decode(errors="replace").strip().splitlines()
            reason = f": {said[-1]}" if said else ""
            raise LabError(f"exec {line!r} failed with status {status}{reason}")
