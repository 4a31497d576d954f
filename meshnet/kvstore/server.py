"""The etcd member that a node runs itself: one member, mutual TLS, detached from the agent.

etcd outlives the agent, so an agent's restart or crash does not touch the cluster's state;
the next agent finds it by pid file and start time. Files under `directory`: `data/` (0700),
`etcd.log`, `etcd.pid`. Debian's etcd 3.4 and 3.5 take the same flags.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import attrs

from meshnet.errors import ConfigError, RegistryError, Timeout
from meshnet.host.process import start_time, terminate
from meshnet.model.addressing import Address, parse_address

LOOPBACK = parse_address("127.0.0.1")
HEARTBEAT_MS = 10
ELECTION_MS = 100
"""Alone it needs nobody's vote: short times make it ready in 0.1 s instead of 1.5 s."""
QUOTA_BYTES = 2 << 30
COMPACT_AFTER = "1h"
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
POLL_S = 0.02


@attrs.frozen
class Process:
    """A process that cannot be mistaken for a later one with its pid."""

    pid: int
    start_time: int
    """Field 22 of /proc/<pid>/stat: clock ticks since boot."""
    trust: str = ""
    """Of the CAs and revocations that it was started with."""

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.start_time


@attrs.define(kw_only=True)
class EtcdServer:
    name: str
    """Of the member: the node's."""
    address: Address
    """Of the underlay; it listens there and on 127.0.0.1. `cert` must be valid for both."""
    directory: Path
    ca: Path
    """The node CA: nobody without a certificate of it may connect."""
    cert: Path
    key: Path
    crl: Path
    """Certificates that were called back; may be absent, then none was."""
    port: int = 2379
    peer_port: int = 2380
    """Only on loopback, as long as the member is alone."""
    health_port: int = 2381
    """Plain HTTP on loopback: /health and /metrics, no keys."""
    _child: subprocess.Popen[bytes] | None = attrs.field(default=None, init=False)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def adopt(self) -> bool:
        """Whether the member that an earlier agent (or we) started is running."""
        return self._running() is not None

    @property
    def settled(self) -> bool:
        """It runs, by the CAs and the revocations that are in the files now.

        It reads its CAs at its start, and a connection that stands is not asked again: so
        whoever changes these files wants it stopped and started.
        """
        process = self._running()
        return process is not None and process.trust == self._trust()

    async def start(self) -> None:
        """Run it unless it runs, and wait until it answers.

        Raises:
            ConfigError: no etcd binary.
            RegistryError: it ended at once; its last words and its log are named.
            Timeout: it did not become healthy; it goes on trying.
        """
        if self._running() is None:
            await asyncio.to_thread(self._spawn)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await self.healthy():
                    if self._running() is None:
                        raise RegistryError(f"etcd did not start: {self._last_words()}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise Timeout(
                f"etcd is not healthy after {START_TIMEOUT_S:g} s: {self._last_words()}"
            ) from error

    async def stop(self) -> None:
        """TERM, 5 s, KILL. It is gone when this returns; not running is no error."""
        process = self._running()
        if process is not None:
            await terminate(process.pid, process.start_time, grace_s=STOP_TIMEOUT_S)
        self._reap()
        self._pid_file.unlink(missing_ok=True)

    async def healthy(self) -> bool:
        """Its own word: it has a leader and can write."""
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.health_port)
                with contextlib.closing(writer):
                    writer.write(b"GET /health HTTP/1.0\r\n\r\n")
                    answer = await reader.read(4096)
        except (OSError, TimeoutError):
            return False
        return answer.startswith(b"HTTP/1.0 200") and b'"health":"true"' in answer

    # --- inside ----------------------------------------------------------------------------

    @property
    def _pid_file(self) -> Path:
        return self.directory / "etcd.pid"

    @property
    def _log_file(self) -> Path:
        return self.directory / "etcd.log"

    def _running(self) -> Process | None:
        self._reap()
        try:
            process = Process(**json.loads(self._pid_file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return process if process.alive else None

    def _reap(self) -> None:
        """A child of ours that ended stays a corpse until asked for."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None

    def _spawn(self) -> None:
        binary = shutil.which("etcd")
        if binary is None:
            raise ConfigError(
                "etcd is not installed: run `apt install etcd-server`, or name an existing etcd "
                "with --etcd"
            )
        data = self.directory / "data"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.chmod(0o700)
        trust = self._trust()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD_")}
        with open(os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)) as log:
            self._child = subprocess.Popen(
                [binary, *self._flags(data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
        started = start_time(self._child.pid)
        record = {"pid": self._child.pid, "start_time": started or 0, "trust": trust}
        temporary = self._pid_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(record))
        temporary.replace(self._pid_file)

    def _trust(self) -> str:
        files = (path for path in (self.ca, self.crl) if path.exists())
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    def _flags(self, data: Path) -> list[str]:
        clients = [self._url(LOOPBACK, self.port)]
        if self.address != LOOPBACK:
            clients.append(self._url(self.address, self.port))
        peer = self._url(LOOPBACK, self.peer_port)
        flags = {
            "name": self.name,
            "data-dir": data,
            "listen-client-urls": ",".join(clients),
            "advertise-client-urls": clients[-1],
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"{self.name}={peer}",
            "listen-metrics-urls": f"http://127.0.0.1:{self.health_port}",
            "trusted-ca-file": self.ca,
            "cert-file": self.cert,
            "key-file": self.key,
            "client-cert-auth": "true",
            "peer-trusted-ca-file": self.ca,
            "peer-cert-file": self.cert,
            "peer-key-file": self.key,
            "peer-client-cert-auth": "true",
            "heartbeat-interval": HEARTBEAT_MS,
            "election-timeout": ELECTION_MS,
            "auto-compaction-mode": "periodic",
            "auto-compaction-retention": COMPACT_AFTER,
            "quota-backend-bytes": QUOTA_BYTES,
            "logger": "zap",
            "log-level": "warn",
            "log-outputs": "stderr",
        }
        if self.crl.exists():
            flags["client-crl-file"] = self.crl
        return [f"--{name}={value}" for name, value in flags.items()]

    def _url(self, address: Address, port: int) -> str:
        host = f"[{address}]" if address.version == 6 else str(address)
        return f"https://{host}:{port}"

    def _last_words(self) -> str:
        lines = self._log_file.read_text(errors="replace").strip().splitlines() or ["no output"]
        try:
            entry = json.loads(lines[-1])
            said = entry.get("error") or entry.get("msg") or lines[-1]
        except ValueError:
            said = lines[-1]
        return f"{said}; see {self._log_file}"
