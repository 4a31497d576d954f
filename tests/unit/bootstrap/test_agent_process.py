"""The agent as a process of the host: started, heard when it dies, stopped, found again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from meshnet.bootstrap import readiness
from meshnet.bootstrap.agent_process import Daemon, unit_text
from meshnet.config import Paths
from meshnet.errors import MeshnetError, Timeout
from meshnet.host.process import start_time

STAYS = [sys.executable, "-c", "import time; time.sleep(60)"]
DIES = [sys.executable, "-c", "import sys; sys.exit('noise\\nError: etcd is away\\nmore noise')"]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(
        config=tmp_path / "etc" / "meshnet.toml",
        state=tmp_path / "state",
        run=tmp_path / "run",
        bpf=tmp_path / "bpf",
        log=tmp_path / "log",
    )


async def test_an_agent_that_dies_is_told_with_its_last_words(paths: Paths) -> None:
    paths.log.mkdir()
    (paths.log / "agent.log").write_text("Error: of an earlier run\n")
    agent = Daemon(paths, DIES)
    with pytest.raises(MeshnetError) as caught:
        await readiness.start(agent, lambda: "not there yet")
    assert str(caught.value) == (
        f"the agent did not start: etcd is away (exit 1, see {paths.log / 'agent.log'})"
    )


async def test_an_agent_that_never_becomes_ready_is_a_timeout(paths: Paths) -> None:
    agent = Daemon(paths, STAYS)
    try:
        with pytest.raises(Timeout, match="not ready after 0 s: still copying"):
            await readiness.start(agent, lambda: "still copying", timeout_s=0)
    finally:
        await agent.stop()


async def test_starting_returns_when_nothing_is_missing(paths: Paths) -> None:
    answers = ["no socket", "no programs", ""]
    agent = Daemon(paths, STAYS)
    try:
        await readiness.start(agent, lambda: answers.pop(0))
        assert answers == []
    finally:
        await agent.stop()


async def test_an_agent_is_stopped_by_who_did_not_start_it(paths: Paths) -> None:
    Daemon(paths, STAYS).start()
    pid = int((paths.run / "agent.pid").read_text().split()[0])
    assert start_time(pid) is not None
    await Daemon(paths).stop()
    assert start_time(pid) is None
    assert not (paths.run / "agent.pid").exists()


async def test_another_process_with_the_agents_pid_is_left_alone(paths: Paths) -> None:
    agent = Daemon(paths, STAYS)
    agent.start()
    file = paths.run / "agent.pid"
    pid, started = map(int, file.read_text().split())
    try:
        file.write_text(f"{pid} {started + 1}\n")
        await Daemon(paths).stop()
        assert start_time(pid) == started
    finally:
        file.write_text(f"{pid} {started}\n")
        await agent.stop()


def test_the_unit_starts_the_agent_again_unless_it_left(paths: Paths) -> None:
    text = unit_text(["/opt/python", "-m", "meshnet.cli.main", "agent"], paths)
    assert "ExecStart=/opt/python -m meshnet.cli.main agent\n" in text
    assert f'Environment="MESHNET_CONFIG={paths.config}"\n' in text
    assert "Restart=on-failure\n" in text
    assert "KillMode=process\n" in text
