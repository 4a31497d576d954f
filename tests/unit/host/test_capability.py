"""Every refusal of the preflight, with its exact words; and on this kernel, without root."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from meshnet.errors import CapabilityMissing
from meshnet.host import capability
from meshnet.host.capability import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN, Probes

EVERYTHING = Probes(
    user_id=lambda: 0,
    capabilities=lambda: 1 << CAP_BPF | 1 << CAP_NET_ADMIN,
    cgroup2=lambda: Path("/sys/fs/cgroup"),
    bpffs=lambda: True,
    tcx=lambda: errno.ENODEV,
)


def test_a_machine_that_has_everything_passes() -> None:
    capability.require_all(EVERYTHING)
    admin = 1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN
    capability.require_all(attrs.evolve(EVERYTHING, capabilities=lambda: admin))


@pytest.mark.parametrize(
    ("lack", "message"),
    [
        ({"user_id": lambda: 1000}, "must be root, not uid 1000: run it with sudo"),
        (
            {"capabilities": lambda: 1 << CAP_NET_ADMIN},
            "CAP_BPF is missing from this process's effective capabilities: add it to the "
            "container or unit (`--cap-add BPF`, `AmbientCapabilities=CAP_BPF`)",
        ),
        (
            {"capabilities": lambda: 1 << CAP_BPF | 1 << CAP_SYS_ADMIN},
            "CAP_NET_ADMIN is missing from this process's effective capabilities: add it to the "
            "container or unit (`--cap-add NET_ADMIN`, `AmbientCapabilities=CAP_NET_ADMIN`)",
        ),
        (
            {"cgroup2": lambda: None},
            "cgroup v2 is not mounted: boot with systemd.unified_cgroup_hierarchy=1, or "
            "`mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`",
        ),
        (
            {"bpffs": lambda: False},
            "bpffs is not mounted at /sys/fs/bpf and cannot be: the kernel needs "
            "CONFIG_BPF_SYSCALL, then `mount -t bpf bpf /sys/fs/bpf`",
        ),
        (
            {"tcx": lambda: errno.EINVAL},
            f"this kernel ({os.uname().release}) cannot attach BPF by tcx links "
            "(Invalid argument): Linux 6.6 or later is needed",
        ),
    ],
    ids=["root", "CAP_BPF", "CAP_NET_ADMIN", "cgroup2", "bpffs", "tcx"],
)
def test_each_lack_is_named_with_its_cure(lack: dict[str, object], message: str) -> None:
    with pytest.raises(CapabilityMissing) as caught:
        capability.require_all(attrs.evolve(EVERYTHING, **lack))  # type: ignore[arg-type]
    assert str(caught.value) == message
    assert caught.value.exit_code == 6


PREFLIGHT = """
from meshnet.errors import CapabilityMissing
from meshnet.host import capability
try:
    capability.require_all()
except CapabilityMissing as error:
    print(error)
"""


@pytest.mark.bpf
@pytest.mark.parametrize(
    ("without", "word"),
    [
        ([], ""),
        (["setpriv", "--bounding-set=-bpf,-sys_admin"], "CAP_BPF is missing"),
        (["setpriv", "--bounding-set=-net_admin"], "CAP_NET_ADMIN is missing"),
        (["setpriv", "--reuid=65534", "--clear-groups"], "must be root, not uid 65534"),
        (["unshare", "--mount", "sh", "-c", 'umount -at cgroup2; exec "$@"', "-"], "cgroup v2"),
    ],
    ids=["nothing", "CAP_BPF", "CAP_NET_ADMIN", "root", "cgroup2"],
)
def test_this_kernel_passes_and_is_refused_without(without: list[str], word: str) -> None:
    done = subprocess.run(
        [*without, sys.executable, "-c", PREFLIGHT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(word) and bool(done.stdout) == bool(word)
