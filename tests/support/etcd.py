"""A real etcd of one member on loopback, for tests: started, frozen, killed, restarted."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import attrs

from meshnet.kvstore.channel import ClientTls
from meshnet.kvstore.etcd import EtcdKV
from meshnet.model.addressing import parse_address
from meshnet.pki.ca import CertificateAuthority
from meshnet.pki.certificate import (
    Authority,
    Profile,
    SigningRequest,
    Subject,
    generate_key,
    make_csr,
)

START_TIMEOUT_S = 20


def free_port() -> int:
    """A port nobody has now. Two sockets at once never get the same."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@attrs.frozen
class Pki:
    """A CA and files signed by it."""

    directory: Path
    authority: CertificateAuthority

    @classmethod
    def create(cls, directory: Path) -> Pki:
        directory.mkdir(parents=True, exist_ok=True)
        authority = CertificateAuthority.create(Authority.NODE, "test")
        (directory / "ca.crt").write_bytes(authority.certificate.pem)
        return cls(directory, authority)

    def issue(
        self,
        name: str,
        profile: Profile,
        *,
        lifetime_s: int = 3600,
        address: str = "127.0.0.1",
        dns_names: tuple[str, ...] = (),
    ) -> ClientTls:
        """A new key and certificate as `<name>.key` and `<name>.crt`, replaced if there."""
        key = generate_key()
        subject = Subject(
            profile=profile,
            cluster="test",
            node=name,
            addresses=(parse_address(address),),
            dns_names=dns_names,
        )
        certificate = self.authority.sign(
            SigningRequest.parse(make_csr(key, name)),
            subject,
            lifetime=datetime.timedelta(seconds=lifetime_s),
        )
        (self.directory / f"{name}.key").write_bytes(key)
        (self.directory / f"{name}.crt").write_bytes(certificate.pem)
        return self.files(name)

    def files(self, name: str) -> ClientTls:
        return ClientTls(
            ca=self.directory / "ca.crt",
            cert=self.directory / f"{name}.crt",
            key=self.directory / f"{name}.key",
        )


@attrs.define
class EtcdProcess:
    """`tls`: also wanted of clients. Ends by its pid, whatever the test did to it."""

    directory: Path
    tls: ClientTls | None = None
    port: int = attrs.field(factory=free_port)
    peer_port: int = attrs.field(factory=free_port)
    metrics_port: int = attrs.field(factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        binary = shutil.which("etcd")
        assert binary, "etcd is not installed: apt install etcd-server"
        scheme = "https" if self.tls else "http"
        peer = f"http://127.0.0.1:{self.peer_port}"
        arguments = {
            "name": "test",
            "data-dir": self.directory / "data",
            "listen-client-urls": f"{scheme}://{self.endpoint}",
            "advertise-client-urls": f"{scheme}://{self.endpoint}",
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"test={peer}",
            "listen-metrics-urls": f"http://127.0.0.1:{self.metrics_port}",
            "heartbeat-interval": 10,
            "election-timeout": 100,
            "log-level": "error",
            "logger": "zap",
        }
        if self.tls:
            arguments |= {
                "trusted-ca-file": self.tls.ca,
                "cert-file": self.tls.cert,
                "key-file": self.tls.key,
            }
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        flags += ["--unsafe-no-fsync", *(["--client-cert-auth"] if self.tls else [])]
        (self.directory / "data").mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([binary, *flags], stdout=log, stderr=log)
        self._wait_until_healthy(self.process)

    def kill(self) -> None:
        """kill -9, also of a frozen one."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def freeze(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def kv(self, **options: float) -> EtcdKV:
        return EtcdKV([self.endpoint], self.tls, **options)  # type: ignore[arg-type]  # floats

    @property
    def _log(self) -> Path:
        return self.directory / "etcd.log"

    def _wait_until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        url = f"http://127.0.0.1:{self.metrics_port}/health"
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert process.poll() is None, f"etcd died: {self._log.read_text()[-800:]}"
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
                if b"true" in answer.read():
                    return
            time.sleep(0.02)
        raise AssertionError(f"etcd did not become healthy: {self._log.read_text()[-800:]}")


@contextlib.contextmanager
def etcd(directory: Path, tls: ClientTls | None = None) -> Iterator[EtcdProcess]:
    """A running etcd with its data under `directory`; gone at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    process = EtcdProcess(directory, tls)
    try:
        process.start()
        yield process
    finally:
        process.kill()
