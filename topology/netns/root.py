"""The file system of one lab host: everything of the machine, and nothing of it writable.

    /            overlay: the machine's `/` below, a tmpfs of this host above
    /home, ...   the same for each other file system of the machine
    /run /tmp /etc/meshnet /var/lib/meshnet      tmpfs, empty
    /proc        of its own PID namespace; /proc/sys read-only but for net
    /sys         of its own network namespace, read-only; its own bpffs and cgroup2 in it
    /dev         a tmpfs with the harmless devices, its own pts and shm

All of it lives in the host's private mount namespace and ends with its last process, so
there is nothing to unmount when a lab is taken away, however it ended.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from meshnet.host.mount import UMOUNT_DETACH, Flag, Mount, bind, mount, mounts, pivot_root, unmount
from topology.model import Bind

OWN = {"/run": "755", "/tmp": "1777", "/etc/meshnet": "755", "/var/lib/meshnet": "755"}
"""Directories that start empty, with their mode."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
OUTSIDE = Path("/run/.outside")
"""Where the machine's root shows while the host is being built."""

_KERNEL_FILESYSTEMS = {
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts",
    "devtmpfs", "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore",
    "rpc_pipefs", "securityfs", "sysfs", "tracefs",
}  # fmt: skip
_INERT = Flag.NO_SUID | Flag.NO_DEV | Flag.NO_EXEC
_FRESH = ("/proc", "/sys", "/dev", *OWN)


def build(stage: Path, hostname: str, cgroups: Path, binds: Sequence[Bind]) -> None:
    """Make it and move into it. The caller is init of its own namespaces.

    Args:
        stage: an empty directory of the machine to mount on, unseen outside.
        cgroups: where the machine has cgroup2; the host gets its own at the same place.

    Raises:
        OSError: the kernel refused a mount; it names the place.
    """
    mount("none", "/", flags=Flag.RECURSIVE | Flag.PRIVATE)
    machine = _to_show(mounts())
    mount("tmpfs", stage, "tmpfs", options="mode=755")
    root = stage / "root"
    root.mkdir()
    for number, shown in enumerate(machine):
        _overlay(shown, root, stage / f"layer{number}")
    mount("tmpfs", root / "run", "tmpfs", options="mode=755")
    outside = root / OUTSIDE.relative_to("/")
    outside.mkdir()
    pivot_root(root, outside)
    for path, mode in OWN.items():
        if path != "/run":
            _fresh(path, "tmpfs", f"mode={mode}")
    _mount_kernel(cgroups)
    _mount_devices()
    for directory in _code():
        _show(Bind(source=directory, target=directory, read_only=True))
    for wanted in binds:
        _show(wanted)
    unmount(OUTSIDE, UMOUNT_DETACH)
    OUTSIDE.rmdir()
    Path("/etc/hostname").write_text(f"{hostname}\n")


def _to_show(found: Iterable[Mount]) -> list[Path]:
    """What of the machine's mounts a host sees; `/` first."""
    shown = {
        mounted.target: None
        for mounted in found
        if mounted.filesystem not in _KERNEL_FILESYSTEMS
        and not any(mounted.target.is_relative_to(fresh) for fresh in _FRESH)
    }
    return sorted(shown, key=lambda path: len(path.parts))


def _overlay(shown: Path, root: Path, layer: Path) -> None:
    """Show one file system of the machine, writable in appearance."""
    target = root / shown.relative_to("/")
    if shown.is_file():  # as container engines mount /etc/resolv.conf
        shutil.copyfile(shown, target)
        return
    upper, work = layer / "upper", layer / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    target.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={_escaped(shown)},upperdir={upper},workdir={work}"
    try:
        mount("overlay", target, "overlay", options=options)
    except OSError:
        if shown == Path("/"):
            raise
        bind(shown, target, read_only=True)  # a file system that cannot be a lower layer (vfat)


def _escaped(path: Path) -> str:
    return "".join(f"\\{c}" if c in "\\:," else c for c in str(path))


def _fresh(path: str, filesystem: str, options: str = "", flags: Flag = Flag.NONE) -> None:
    Path(path).mkdir(parents=True, exist_ok=True)
    mount(filesystem, path, filesystem, flags, options)


def _mount_kernel(cgroups: Path) -> None:
    _fresh("/proc", "proc", flags=_INERT)
    # /proc/sys/net is per network namespace; the rest is the machine's
    bind("/proc/sys", "/proc/sys", read_only=True)
    bind("/proc/sys/net", "/proc/sys/net")
    mount("none", "/proc/sys/net", flags=Flag.BIND | Flag.REMOUNT)
    if Path("/proc/sysrq-trigger").exists():
        bind(OUTSIDE / "dev/null", "/proc/sysrq-trigger")
    _fresh("/sys", "sysfs", flags=_INERT | Flag.READ_ONLY)
    mount("bpf", "/sys/fs/bpf", "bpf", options="mode=700")
    if cgroups != Path("/sys/fs/cgroup"):  # hybrid: it is one of several below a tmpfs
        mount("tmpfs", "/sys/fs/cgroup", "tmpfs", options="mode=755")
    _fresh(str(cgroups), "cgroup2")


def _mount_devices() -> None:
    mount("tmpfs", "/dev", "tmpfs", Flag.NO_SUID, "mode=755")
    for name in DEVICES:
        outside = OUTSIDE / "dev" / name
        if outside.exists():
            target = Path("/dev") / name
            target.parent.mkdir(exist_ok=True)
            target.touch()
            bind(outside, target)
    _fresh("/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=620", Flag.NO_SUID | Flag.NO_EXEC)
    _fresh("/dev/shm", "tmpfs", "mode=1777", Flag.NO_SUID | Flag.NO_DEV)
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        links[name] = f"/proc/self/fd/{number}"
    for name, target_text in links.items():
        os.symlink(target_text, f"/dev/{name}")


def _code() -> list[Path]:
    """Where this program runs from, as far as a directory that starts empty would hide it."""
    places = {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]}
    return [p for p in sorted(places) if any(p.is_relative_to(own) for own in OWN)]


def _show(wanted: Bind) -> None:
    """Bind something of the machine. Links in `target` are followed inside the host."""
    source = OUTSIDE / wanted.source.relative_to("/")
    target = Path(os.path.realpath(wanted.target))
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    bind(source, target, read_only=wanted.read_only)
