"""The command line, run in this process against a fake agent on a real UNIX socket."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from meshnet.cli.main import execute
from tests.support.agent_api import FakeAgent, serve


@attrs.frozen
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Meshnet = Callable[..., Outcome]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A node's directories, with a settings file: this node is in a cluster."""
    # not pytest's tmp_path: a UNIX socket's path has 107 bytes at most
    with tempfile.TemporaryDirectory(prefix="mn-") as name:
        root = Path(name)
        (root / "meshnet.toml").write_text("# the CLI only asks whether it exists\n")
        monkeypatch.setenv("MESHNET_CONFIG", str(root / "meshnet.toml"))
        monkeypatch.setenv("MESHNET_STATE_DIR", str(root / "state"))
        monkeypatch.setenv("MESHNET_RUN_DIR", str(root / "run"))
        monkeypatch.setenv("MESHNET_BPF_DIR", str(root / "bpf"))
        for name in ("MESHNET_OUTPUT", "MESHNET_NAMESPACE", "MESHNET_TOKEN", "MESHNET_DEBUG"):
            monkeypatch.delenv(name, raising=False)
        yield root


@pytest.fixture
def agent(home: Path) -> Iterator[FakeAgent]:
    fake = FakeAgent()
    with serve(fake, home / "run" / "agent.sock"):
        yield fake


@pytest.fixture
def meshnet(home: Path, capsys: pytest.CaptureFixture[str]) -> Meshnet:
    """`meshnet("status", "-o", "json")` -> exit code, stdout, stderr."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = execute(list(arguments))
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run
