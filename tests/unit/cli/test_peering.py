"""`mesh add` and `mesh access`: files to the agent, files from it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from tests.support.agent_api import FakeAgent
from tests.unit.cli.conftest import Meshnet


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Cilium's configuration with its PEM files beside it, though it names its pods' paths."""
    directory = tmp_path / "cil"
    directory.mkdir()
    names = {"trusted-ca-file": "cil-ca.crt", "cert-file": "cil.crt", "key-file": "cil.key"}
    for name in names.values():
        (directory / name).write_text(f"PEM of {name}")
    paths = {field: f"/var/lib/cilium/clustermesh/{name}" for field, name in names.items()}
    path = directory / "cil"
    path.write_text(yaml.safe_dump({"endpoints": ["https://192.0.2.7:2379"], **paths}))
    return path


def test_add_sends_the_configuration_and_the_texts_of_its_files(
    config: Path, agent: FakeAgent, meshnet: Meshnet
) -> None:
    done = meshnet("mesh", "add", "cil", "--etcd-config", str(config), "--pod-cidr", "10.7.0.0/16")

    assert (done.code, done.out.splitlines()[-1]) == (0, "cluster cil (id 7) added")
    assert "meshnet mesh access cil" in done.err
    (body,) = agent.peers
    assert body["pod_cidrs"] == ["10.7.0.0/16"]
    assert body["config"] == {
        "endpoints": ["192.0.2.7:2379"],
        "access": {
            "ca": "PEM of cil-ca.crt",
            "cert": "PEM of cil.crt",
            "key": "PEM of cil.key",
            "names": {},
        },
    }


@pytest.mark.parametrize(
    ("change", "said", "code"),
    [
        (("cil", "Cil"), "cluster name 'Cil' is invalid", 2),
        (("10.7.0.0/16", "10.7.0.1/16"), "10.7.0.1/16", 2),
        (("FILE", "/nowhere"), "/nowhere cannot be read", 2),
    ],
)
def test_bad_input_is_refused_before_the_agent_is_asked(
    change: tuple[str, str], said: str, code: int, config: Path, agent: FakeAgent, meshnet: Meshnet
) -> None:
    words = ["mesh", "add", "cil", "--etcd-config", "FILE", "--pod-cidr", "10.7.0.0/16"]
    words[words.index(change[0])] = change[1]

    done = meshnet(*[str(config) if word == "FILE" else word for word in words])

    assert (done.code, done.out) == (code, "")
    assert said in done.err and done.err.count("\n") == 1
    assert not agent.peers


def test_a_pem_file_that_is_missing_is_named(config: Path, meshnet: Meshnet) -> None:
    (config.parent / "cil.key").unlink()

    done = meshnet("mesh", "add", "cil", "--etcd-config", str(config), "--pod-cidr", "10.7.0.0/16")

    assert done.code == 2 and f"{config.parent / 'cil.key'} cannot be read" in done.err


def test_access_writes_files_that_only_their_owner_reads(
    tmp_path: Path, agent: FakeAgent, meshnet: Meshnet
) -> None:
    directory = tmp_path / "for-cil"

    for _ in range(2):  # the second time they are replaced
        done = meshnet("mesh", "access", "cil", "--out", str(directory))

    assert done.code == 0
    written = sorted(path.name for path in directory.iterdir())
    assert sorted(Path(line).name for line in done.out.splitlines()) == written
    files = ["east", *(f"east.etcd-client{end}" for end in ("-ca.crt", ".crt", ".key"))]
    assert written == files
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in written:
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    assert yaml.safe_load((directory / "east").read_text())["endpoints"] == [
        "https://192.0.2.1:4243"
    ]
    assert "KEY" in (directory / "east.etcd-client.key").read_text()


def test_access_asks_to_end_or_to_keep_what_was_written_before(
    tmp_path: Path, agent: FakeAgent, meshnet: Meshnet
) -> None:
    for words in ((), ("--renew",)):
        assert meshnet("mesh", "access", "cil", "--out", str(tmp_path), *words).code == 0
    assert agent.renewals == [False, True]


def test_access_for_a_cluster_that_was_not_added_exits_4(
    tmp_path: Path, agent: FakeAgent, meshnet: Meshnet
) -> None:
    done = meshnet("mesh", "access", "other", "--out", str(tmp_path / "x"))

    assert done.code == 4 and "mesh add other" in done.err
    assert not (tmp_path / "x").exists()


def test_access_into_a_file_is_refused(tmp_path: Path, agent: FakeAgent, meshnet: Meshnet) -> None:
    (tmp_path / "x").write_text("")

    done = meshnet("mesh", "access", "cil", "--out", str(tmp_path / "x"))

    assert done.code == 2 and "is no directory" in done.err
