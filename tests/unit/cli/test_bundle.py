"""`meshnet bundle`: what is in it, what is not, and that it comes without an agent too."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from meshnet.cli import bundle
from meshnet.errors import Unreachable
from tests.support.agent_api import FakeAgent
from tests.unit.cli.conftest import Meshnet

KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----\n"


def contents(file: Path) -> dict[str, str]:
    with tarfile.open(file) as archive:
        return {
            member.name.removeprefix("meshnet-bundle/"): opened.read().decode()
            for member in archive
            if (opened := archive.extractfile(member)) is not None
        }


@pytest.fixture
def node(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings, certificates, keys and a log, with secrets where they do not belong."""
    monkeypatch.setenv("MESHNET_LOG_DIR", str(home / "log"))
    (home / "log").mkdir()
    (home / "log" / "agent.log").write_text(f"joined with mnt1.c2VjcmV0\n{KEY}ready\n")
    (home / "state" / "pki").mkdir(parents=True)
    (home / "state" / "pki" / "node.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    (home / "state" / "pki" / "node.key").write_text(KEY)
    return home


def test_it_holds_what_the_agent_tells_and_what_the_host_is(
    agent: FakeAgent, node: Path, meshnet: Meshnet
) -> None:
    file = node / "b.tar.gz"
    outcome = meshnet("bundle", "--out", str(file))
    assert (outcome.code, outcome.out) == (0, f"{file}\n")
    assert file.stat().st_mode & 0o777 == 0o600
    found = contents(file)
    assert json.loads(found["agent/status.json"])["node"]["name"] == "east-1"
    assert json.loads(found["agent/endpoints.json"]) == []
    assert "ipcache" in {name.removeprefix("maps/").removesuffix(".json") for name in found}
    assert "lo:" in found["host/links.txt"]
    assert found["pki/node.crt"].startswith("-----BEGIN CERTIFICATE")


def test_no_secret_is_in_it(agent: FakeAgent, node: Path, meshnet: Meshnet) -> None:
    meshnet("bundle", "--out", str(node / "b.tar.gz"))
    found = contents(node / "b.tar.gz")
    assert not [name for name in found if name.endswith(".key")]
    assert not [name for name, text in found.items() if "MIGHAg" in text or "c2VjcmV0" in text]
    assert found["agent.log"] == "joined with [removed]\n[removed]\nready\n"


def test_without_an_agent_it_has_the_rest_and_says_what_is_missing(
    node: Path, meshnet: Meshnet
) -> None:
    outcome = meshnet("bundle", "--out", str(node / "b.tar.gz"))
    assert outcome.code == 0
    assert "without agent/status.json: " in outcome.err
    found = contents(node / "b.tar.gz")
    assert "agent/status.json" not in found and "agent.log" in found
    assert "agent/status.json" in json.loads(found["bundle.json"])["missing"]


def test_with_etcd_away_or_a_file_that_is_no_text_it_has_the_rest_at_once(
    agent: FakeAgent, node: Path, meshnet: Meshnet
) -> None:
    away = Unreachable("etcd at 192.0.2.1:2379 is unreachable: connection refused")
    away.own_etcd = True
    agent.unreachable = [away] * 1000
    (node / "state" / "pki" / "node.crt").write_bytes(b"\xff\xfe")
    outcome = meshnet("bundle", "--out", str(node / "b.tar.gz"))
    assert outcome.code == 0
    assert "trying again" not in outcome.err
    found = contents(node / "b.tar.gz")
    missing = json.loads(found["bundle.json"])["missing"]
    assert missing["agent/manifests.json"] == str(away)
    assert "can't decode" in missing["pki/node.crt"]
    assert "agent.log" in found


def test_where_nothing_can_be_written_is_one_line(node: Path, meshnet: Meshnet) -> None:
    file = node / "nowhere" / "b.tar.gz"
    outcome = meshnet("bundle", "--out", str(file))
    assert (outcome.code, outcome.err) == (
        2,
        f"Error: {file} cannot be written: No such file or directory: choose another place with "
        "--out\n",
    )


def test_a_file_system_without_hard_links_will_do(
    node: Path, meshnet: Meshnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    outcome = meshnet("bundle", "--out", str(node / "b.tar.gz"))
    assert outcome.code == 0
    assert "agent.log" in contents(node / "b.tar.gz")
    assert not list(node.glob(".b*"))


def test_a_file_that_is_there_stays_as_it_is(node: Path, meshnet: Meshnet) -> None:
    file = node / "b.tar.gz"
    file.write_text("mine")
    outcome = meshnet("bundle", "--out", str(file))
    assert outcome.code == 1
    assert outcome.err == f"Error: {file} is there already: choose another name with --out\n"
    assert file.read_text() == "mine"


def test_of_a_long_log_the_newest_lines_are_kept_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "LOG_BYTES", 20)
    log = tmp_path / "agent.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert bundle.tail(log) == "line 98\nline 99\n"
