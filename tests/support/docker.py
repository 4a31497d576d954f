"""A Docker engine of the test's own: its own sockets, its own storage, no bridge, no iptables."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

DOCKERD = (
    "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
    "--bridge=none", "--storage-driver=overlay2",
)  # fmt: skip
START_S = 30.0
BUILD_S = 280.0


@attrs.frozen
class Engine:
    socket: Path

    def __call__(self, *words: str, timeout_s: float = 60.0, fails: bool = False) -> str:
        """`docker WORDS`: its stdout; of what is to fail, all that it says. Else than wanted is a
        failed test with its last words."""
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *words],
            capture_output=True, text=True, timeout=timeout_s, check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DOCKER_BUILDKIT": "0", "HOME": "/root"},
        )  # fmt: skip
        if fails:
            assert done.returncode != 0, f"docker {words[:2]} did not fail"
            return done.stdout + done.stderr
        assert done.returncode == 0, (
            f"docker {words[:2]}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
        )
        return done.stdout.strip()

    def pid(self, container: str) -> int:
        return int(self("inspect", "-f", "{{.State.Pid}}", container))


@contextlib.contextmanager
def engine(directory: Path) -> Iterator[Engine]:
    """Debian's containerd and dockerd below a directory; every process ends with the block."""
    for program in ("containerd", "dockerd"):
        assert shutil.which(program), f"{program} is not installed: `apt install docker.io`"
    containerd = directory / "containerd.sock"
    found = Engine(directory / "docker.sock")
    with contextlib.ExitStack() as ends:
        ends.callback(_unmount_below, directory)
        _start(ends, directory, "containerd", "--root", str(directory / "cr"),
               "--state", str(directory / "cs"), "--address", str(containerd))  # fmt: skip
        _await(containerd.exists)
        _start(ends, directory, "dockerd", "--containerd", str(containerd),
               "-H", f"unix://{found.socket}", "--data-root", str(directory / "data"),
               "--exec-root", str(directory / "exec"), "-p", str(directory / "docker.pid"),
               *DOCKERD)  # fmt: skip
        _await(lambda: found.socket.exists() and _answers(found))
        try:
            yield found
        finally:
            containers = found("ps", "-aq").split()
            if containers:
                found("rm", "-f", *containers)


def _start(ends: contextlib.ExitStack, directory: Path, *argv: str) -> None:
    with open(directory / f"{argv[0]}.log", "w") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    ends.callback(process.wait, 20)
    ends.callback(process.terminate)


def _unmount_below(directory: Path) -> None:
    """dockerd leaves the mount of its own network namespace."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [target for line in lines if Path(target := line.split()[4]).is_relative_to(directory)]
    for target in sorted(mounts, reverse=True):
        subprocess.run(["umount", target], check=True)


def _answers(found: Engine) -> bool:
    try:
        found("info")
    except AssertionError:
        return False
    return True


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, "the Docker engine did not come up: see its logs"
        time.sleep(0.1)


def base_image(found: Engine, directory: Path) -> str:
    """Debian 12: from the registry where one is reached, else made from the archive."""
    try:
        found("pull", "-q", "debian:12-slim", timeout_s=40)
        return "debian:12-slim"
    except (AssertionError, subprocess.TimeoutExpired):
        root = directory / "base"
        subprocess.run(
            ["debootstrap", "--variant=minbase", "bookworm", str(root)],
            check=True, timeout=BUILD_S, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        archive = directory / "base.tar"
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
        shutil.rmtree(root)
        found("import", str(archive), "meshnet-base:12", timeout_s=BUILD_S)
        archive.unlink()
        return "meshnet-base:12"
