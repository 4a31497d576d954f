"""A node's settings: file, environment, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshnet.config import Paths, load
from meshnet.errors import ConfigError

VALID = """\
cluster = "east"
cluster_id = 1
node = "a"
underlay = "eth0"
{more}
[etcd]
endpoints = ["127.0.0.1:2379"]
ca = "ca"
cert = "cert"
key = "key"
"""


def written(directory: Path, more: str = "") -> Paths:
    paths = Paths(config=directory / "meshnet.toml")
    paths.config.write_text(VALID.format(more=more))
    return paths


def test_the_number_of_flows_is_the_files_and_the_environments_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESHNET_CONNTRACK_ENTRIES", raising=False)
    assert load(written(tmp_path)).conntrack_entries == 262_144
    assert load(written(tmp_path, "conntrack_entries = 65536")).conntrack_entries == 65_536

    monkeypatch.setenv("MESHNET_CONNTRACK_ENTRIES", "4096")
    assert load(written(tmp_path, "conntrack_entries = 65536")).conntrack_entries == 4096


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("conntrack_entries = 10", "'conntrack_entries' must be >= 1024: 10"),
        ("conntrack_entries = 100_000_000", "'conntrack_entries' must be <= 16777216: 100000000"),
        ("conntrack_entries = 'many'", "expected int @ settings.conntrack_entries"),
        ("conntrack = 4096", "extra fields found"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_wrong(tmp_path: Path, more: str, said: str) -> None:
    paths = written(tmp_path, more)

    with pytest.raises(ConfigError, match="is faulty") as refused:
        load(paths)
    assert said in str(refused.value)
