"""The managed etcd member: it starts, outlives us, is found again, and ends."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshnet.errors import ConfigError, RegistryError, Unreachable
from meshnet.host.process import start_time
from meshnet.kvstore.etcd import EtcdKV
from meshnet.kvstore.server import EtcdServer, Process
from meshnet.model.addressing import parse_address
from meshnet.pki.certificate import Profile
from tests.support.etcd import Pki, free_port

pytestmark = pytest.mark.etcd


def make_server(directory: Path, pki: Pki, **ports: int) -> EtcdServer:
    files = pki.issue("etcd", Profile.ETCD)
    chosen = {name: free_port() for name in ("port", "peer_port", "health_port")} | ports
    return EtcdServer(
        crl=directory / "none.crl",
        name="n1",
        address=parse_address("127.0.0.1"),
        directory=directory,
        ca=files.ca,  # type: ignore[arg-type]  # Pki gives paths
        cert=files.cert,  # type: ignore[arg-type]
        key=files.key,  # type: ignore[arg-type]
        **chosen,
    )


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki.create(tmp_path / "pki")


@pytest.fixture
async def server(tmp_path: Path, pki: Pki) -> AsyncIterator[EtcdServer]:
    made = make_server(tmp_path / "etcd", pki)
    try:
        yield made
    finally:
        await made.stop()


async def test_it_serves_nodes_and_nobody_else(server: EtcdServer, pki: Pki) -> None:
    await server.start()
    assert await server.healthy()
    kv = EtcdKV([server.endpoint], pki.issue("n1", Profile.NODE))
    await kv.put("k", b"v")
    await kv.close()
    stranger = Pki.create(pki.directory / "stranger").issue("n1", Profile.NODE)
    files = pki.files("n1")
    foreign = EtcdKV(
        [server.endpoint], type(files)(ca=files.ca, cert=stranger.cert, key=stranger.key)
    )
    with pytest.raises(Unreachable, match=r"etcd at .* is unreachable: it refused our client cert"):
        await foreign.get("k")
    await foreign.close()


async def test_its_data_is_closed_to_other_users(server: EtcdServer) -> None:
    await server.start()
    assert stat.S_IMODE((server.directory / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((server.directory / "etcd.log").stat().st_mode) == 0o600


async def test_the_next_agent_adopts_it_and_starts_no_second(
    server: EtcdServer, tmp_path: Path, pki: Pki
) -> None:
    await server.start()
    pid = (server.directory / "etcd.pid").read_text()
    ports = {"port": server.port, "peer_port": server.peer_port, "health_port": server.health_port}
    later = make_server(server.directory, pki, **ports)
    assert await later.adopt()
    await later.start()
    assert (server.directory / "etcd.pid").read_text() == pid
    await later.stop()
    assert not await server.adopt()
    assert not await server.healthy()


async def test_it_outlives_the_process_that_started_it(server: EtcdServer) -> None:
    script = f"""
import asyncio, ipaddress, os, pathlib
from meshnet.kvstore.server import EtcdServer
server = EtcdServer(name="n1", address=ipaddress.ip_address("127.0.0.1"),
    directory=pathlib.Path({str(server.directory)!r}), ca=pathlib.Path({str(server.ca)!r}),
    crl=pathlib.Path({str(server.crl)!r}),
    cert={str(server.cert)!r}, key={str(server.key)!r}, port={server.port},
    peer_port={server.peer_port}, health_port={server.health_port})
asyncio.run(server.start())
os._exit(9)
"""
    command = [sys.executable, "-c", script]
    ended = await asyncio.to_thread(subprocess.run, command, timeout=60, check=False)
    assert ended.returncode == 9
    assert await server.adopt()
    assert await server.healthy()


async def test_a_dead_one_is_not_adopted_and_starts_again(server: EtcdServer, pki: Pki) -> None:
    await server.start()
    kv = EtcdKV([server.endpoint], pki.issue("n1", Profile.NODE))
    await kv.put("k", b"v")
    assert server._child is not None
    server._child.kill()
    server._child.wait(10)
    assert not await server.adopt()
    await server.start()
    found = await kv.get("k")
    assert found is not None and found.value == b"v"
    await kv.close()


async def test_a_process_that_only_has_its_pid_is_not_taken_for_it(server: EtcdServer) -> None:
    server.directory.mkdir(parents=True)
    ours = start_time(os.getpid())
    assert ours is not None and Process(os.getpid(), ours).alive
    wrong = f'{{"pid": {os.getpid()}, "start_time": {ours + 1}}}'
    (server.directory / "etcd.pid").write_text(wrong)
    assert not await server.adopt()
    await server.stop()


async def test_without_the_binary_it_says_what_to_install(
    server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="etcd is not installed: run `apt install etcd-server`"):
        await server.start()


async def test_a_port_that_is_taken_is_named_with_the_log(
    server: EtcdServer, tmp_path: Path, pki: Pki
) -> None:
    await server.start()
    second = make_server(tmp_path / "second", pki, port=server.port)
    with pytest.raises(
        RegistryError, match=r"etcd did not start: .*address already in use.*; see .*etcd\.log"
    ):
        await second.start()
