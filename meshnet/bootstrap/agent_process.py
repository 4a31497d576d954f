"""The agent as a service of this host: started, watched while it starts, stopped.

Under systemd it is the unit `meshnet.service`; elsewhere (a lab host, a container, another
init) a process in a session of its own, its PID in `agent.pid` and its words in `agent.log`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from meshnet.config import Paths
from meshnet.errors import MeshnetError
from meshnet.host.process import start_time, terminate

SYSTEMD = Path("/run/systemd/system")
"""Exists where systemd is the init (sd_booted(3))."""
UNIT = Path("/etc/systemd/system/meshnet.service")

STOP_GRACE_S = 20.0
"""An agent that stops revokes its lease first, which waits for etcd."""
SAID = "Error: "
"""How a command that fails begins its last line."""


class AgentProcess(Protocol):
    """One way to run the agent on a host."""

    def start(self) -> None:
        """Returns when it was started; it is not ready then. Raises MeshnetError."""

    def failure(self) -> str | None:
        """Why it ended, None while it runs."""

    async def stop(self) -> None:
        """Returns when it has ended, and will not come back at the next boot."""


def for_this_host(paths: Paths) -> AgentProcess:
    return SystemdUnit(paths) if SYSTEMD.is_dir() else Daemon(paths)


def command() -> list[str]:
    """The agent by this very interpreter: no PATH and no shell to go wrong."""
    return [sys.executable, "-m", "meshnet.cli.main", "agent"]


class Daemon:
    """A process of our own."""

    def __init__(self, paths: Paths, argv: list[str] | None = None) -> None:
        self._paths = paths
        self._argv = argv or command()
        self._pid_file = paths.run / "agent.pid"
        self._log = paths.log / "agent.log"
        self._log_start = 0
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for file in (self._pid_file, self._log):
            file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # not fork: gRPC's threads may hold locks that a child would wait for for ever
        with open(self._log, "ab") as log:
            self._log_start = log.tell()
            self._child = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                env=os.environ | self._paths.as_environment(),
            )
        started = start_time(self._child.pid)
        self._pid_file.write_text(f"{self._child.pid} {started}\n")

    def failure(self) -> str | None:
        code = self._child.poll() if self._child else None
        if code is None:
            return None
        with open(self._log, errors="replace") as log:
            log.seek(self._log_start)
            lines = log.read().splitlines() or ["it said nothing"]
        said = [line for line in lines if line.startswith(SAID)]
        return f"{(said or lines)[-1].removeprefix(SAID)} (exit {code}, see {self._log})"

    async def stop(self) -> None:
        try:
            pid, started = map(int, self._pid_file.read_text().split())
        except (FileNotFoundError, ValueError):
            return
        await terminate(pid, started, grace_s=STOP_GRACE_S)
        if self._child is not None:
            self._child.wait()
        self._pid_file.unlink(missing_ok=True)


class SystemdUnit:
    """A unit that systemd starts again when it dies, and at every boot."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def start(self) -> None:
        UNIT.write_text(unit_text(command(), self._paths))
        _systemctl("daemon-reload")
        _systemctl("enable", "--now", UNIT.name)

    def failure(self) -> str | None:
        shown = _systemctl("show", "--property=ActiveState,Result", "--value", UNIT.name).split()
        if shown[:1] != ["failed"]:
            return None
        return f"its unit failed ({' '.join(shown[1:])}): see `journalctl -u {UNIT.stem}`"

    async def stop(self) -> None:
        await asyncio.to_thread(self._remove)

    def _remove(self) -> None:
        if UNIT.exists():
            _systemctl("disable", "--now", UNIT.name)
            UNIT.unlink()
            _systemctl("daemon-reload")


def unit_text(argv: list[str], paths: Paths) -> str:
    environment = "\n".join(
        f'Environment="{name}={value}"' for name, value in paths.as_environment().items()
    )
    return f"""\
[Unit]
Description=meshnet agent
Documentation=https://github.com/meshnet/meshnet
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={" ".join(argv)}
{environment}
Restart=on-failure
RestartSec=1
# endpoints' processes and etcd go on while the agent is replaced
KillMode=process
LimitMEMLOCK=infinity
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""


def _systemctl(*arguments: str) -> str:
    done = subprocess.run(
        ["systemctl", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"SYSTEMD_PAGER": ""},
    )
    if done.returncode:
        raise MeshnetError(
            f"`systemctl {' '.join(arguments)}` failed: {done.stderr.strip()}: see "
            f"`journalctl -u {UNIT.stem}`"
        )
    return done.stdout
