"""The cgroup v2 hierarchy: where it is mounted, and groups in it.

On a pure v2 host it is /sys/fs/cgroup; on a hybrid one it is a second mount beside the v1
controllers, mostly /sys/fs/cgroup/unified.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path

import attrs

from meshnet.errors import CapabilityMissing, Timeout
from meshnet.host.mount import mounts

KILL_TIMEOUT_S = 5.0
MISSING = (
    "cgroup v2 is not mounted: boot with systemd.unified_cgroup_hierarchy=1, or "
    "`mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`"
)


def hierarchy() -> Path:
    """The mount point of cgroup v2. Raises CapabilityMissing where it is not mounted."""
    found = find_hierarchy()
    if found is None:
        raise CapabilityMissing(MISSING)
    return found


def find_hierarchy() -> Path | None:
    """The mount point of cgroup v2, None where it is not mounted."""
    return next((mount.target for mount in mounts() if mount.filesystem == "cgroup2"), None)


@attrs.frozen
class Cgroup:
    """One group. Its directory need not exist yet."""

    path: Path

    def child(self, name: str) -> Cgroup:
        return Cgroup(self.path / name)

    def create(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def enter(self) -> None:
        """Move the calling process in, with what it will fork."""
        (self.path / "cgroup.procs").write_text("0")

    def pids(self) -> list[int]:
        """The processes in it and below it, in the caller's PID namespace."""
        return [
            int(pid)
            for procs in self.path.rglob("cgroup.procs")
            for pid in _read(procs).split()
            if pid != "0"  # of a namespace that we do not see
        ]

    def freeze(self, frozen: bool) -> None:
        """Stop every process in it, or let them go on. Returns when that has happened."""
        (self.path / "cgroup.freeze").write_text("1" if frozen else "0")
        self._await_event("frozen", "1" if frozen else "0")

    def is_frozen(self) -> bool:
        return (self.path / "cgroup.freeze").read_text().strip() == "1"

    def kill(self) -> None:
        """SIGKILL to every process in it and below it, frozen ones too; returns when they
        are gone. A group that does not exist has none.

        Raises:
            Timeout: some were still there after five seconds.
        """
        try:
            (self.path / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            return
        self._await_event("populated", "0")

    def remove(self) -> None:
        """Remove it and the groups below it; they hold no process any more."""
        for directory, _, _ in os.walk(self.path, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(directory)

    def _await_event(self, name: str, value: str) -> None:
        """The kernel wakes whoever polls cgroup.events when a line of it changes."""
        deadline = time.monotonic() + KILL_TIMEOUT_S
        with open(self.path / "cgroup.events") as events:
            poller = select.poll()
            poller.register(events, select.POLLPRI)
            while dict(line.split() for line in events)[name] != value:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise Timeout(
                        f"cgroup {self.path} did not reach {name}={value} in "
                        f"{KILL_TIMEOUT_S:.0f} s: processes {self.pids()} are stuck in the kernel"
                    )
                poller.poll(left_s * 1000)
                events.seek(0)


def _read(path: Path) -> str:
    """Empty for a group that vanished, or one whose processes we may not see (threaded)."""
    try:
        return path.read_text()
    except OSError:
        return ""
