"""What a failed init or a leave takes away, and what it must not touch."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshnet.bootstrap.init import require_no_cluster
from meshnet.bootstrap.sweep import sweep_files
from meshnet.config import EtcdSettings, Paths, Settings, save
from meshnet.errors import AlreadyExists
from meshnet.pki.certificate import Profile
from meshnet.pki.store import PkiStore


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(
        config=tmp_path / "etc" / "meshnet.toml",
        state=tmp_path / "state",
        run=tmp_path / "run",
        bpf=tmp_path / "bpf",
        log=tmp_path / "log",
    )


def member(paths: Paths) -> None:
    etcd = EtcdSettings(endpoints=("127.0.0.1:2379",), ca="ca", cert="cert", key="key")
    save(paths, Settings(cluster="east", cluster_id=1, node="a", underlay="eth0", etcd=etcd))


def test_everything_of_a_node_goes_and_an_operators_file_stays(paths: Paths) -> None:
    member(paths)
    PkiStore(paths.pki).ensure_key(Profile.NODE)
    (paths.run / "endpoints").mkdir(parents=True)
    own = paths.config.with_name("notes.txt")
    own.write_text("mine")
    sweep_files(paths)
    assert list(paths.config.parent.parent.rglob("*")) == [own.parent, own]
    sweep_files(paths)


def test_a_join_that_failed_keeps_the_keys_that_claim_its_token(paths: Paths) -> None:
    store = PkiStore(paths.pki)
    key = store.ensure_key(Profile.NODE)
    store.save_certificate(Profile.NODE, b"certificate")
    sweep_files(paths, keep_keys=True)
    assert store.ensure_key(Profile.NODE) == key
    assert [path.name for path in paths.pki.iterdir()] == ["node.key"]
    require_no_cluster(paths)


def test_a_host_that_is_in_a_cluster_is_told_so(paths: Paths) -> None:
    member(paths)
    with pytest.raises(AlreadyExists) as caught:
        require_no_cluster(paths)
    assert str(caught.value) == (
        "this host is node a of cluster east already: `meshnet status` shows it; to start anew "
        "run `meshnet cluster leave` first"
    )


def test_what_a_cluster_left_is_never_overwritten(paths: Paths) -> None:
    (paths.state / "etcd").mkdir(parents=True)
    with pytest.raises(AlreadyExists) as caught:
        require_no_cluster(paths)
    assert str(caught.value) == (
        f"{paths.state / 'etcd'} is left from a cluster that this host was in: `meshnet cluster "
        "leave --force` removes it"
    )
