"""The PKI directory: modes, renewal dates, and that a crash leaves no half file."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meshnet.errors import ConfigError
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import Authority, Profile, Subject, make_csr
from meshnet.pki.store import PkiStore

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> PkiStore:
    return PkiStore(tmp_path / "pki")


def enrol(store: PkiStore, signer: Signer, profile: Profile, lifetime: timedelta) -> None:
    csr = make_csr(store.ensure_key(profile), "n1")
    subject = Subject(profile=profile, cluster="east", node="n1")
    store.save_certificate(profile, signer.sign(csr, subject, lifetime=lifetime, now=NOW).pem)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_keys_are_for_root_alone_whatever_the_umask(store: PkiStore) -> None:
    previous = os.umask(0)
    try:
        store.ensure_key(Profile.NODE)
        Signer.create("east").save(store)
    finally:
        os.umask(previous)

    assert mode(store.directory) == 0o700
    assert mode(store.key_path(Profile.NODE)) == 0o600
    assert mode(store.ca_key_path(Authority.NODE)) == 0o600
    assert mode(store.ca_key_path(Authority.MESH)) == 0o600
    assert mode(store.ca_path(Authority.MESH)) == 0o644


def test_key_is_made_once_so_that_a_second_try_is_the_same_claimant(store: PkiStore) -> None:
    assert store.ensure_key(Profile.NODE) == store.ensure_key(Profile.NODE)
    assert store.ensure_key(Profile.NODE) != store.ensure_key(Profile.MIRROR)


def test_signer_read_back_signs_what_the_saved_ca_verifies(store: PkiStore) -> None:
    signer = Signer.create("east", now=NOW)
    signer.save(store)

    enrol(store, Signer.load(store), Profile.MIRROR, timedelta(days=7))

    certificate = store.certificate(Profile.MIRROR)
    assert certificate is not None
    certificate.parsed.verify_directly_issued_by(signer.mesh.certificate.parsed)


def test_certificates_are_due_at_two_thirds_of_their_life_soonest_first(store: PkiStore) -> None:
    signer = Signer.create("east", now=NOW)
    signer.save(store)
    enrol(store, signer, Profile.NODE, timedelta(days=6))
    enrol(store, signer, Profile.MIRROR, timedelta(days=3))

    assert [expiry.profile for expiry in store.expiries()] == [Profile.MIRROR, Profile.NODE]
    assert store.due(NOW + timedelta(days=2) - timedelta(seconds=1)) == ()
    assert store.due(NOW + timedelta(days=2)) == (Profile.MIRROR,)
    assert store.due(NOW + timedelta(days=4)) == (Profile.MIRROR, Profile.NODE)


def test_failed_write_leaves_the_old_file_and_no_debris(
    store: PkiStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save_ca(Authority.NODE, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left"):
        store.save_ca(Authority.NODE, b"new")

    assert store.ca(Authority.NODE) == b"old"
    assert [path.name for path in store.directory.iterdir()] == ["node-ca.crt"]


def test_missing_file_is_named(store: PkiStore) -> None:
    with pytest.raises(ConfigError) as refusal:
        store.ca(Authority.MESH)

    expected = f"{store.ca_path(Authority.MESH)} cannot be read: No such file or directory"
    assert str(refusal.value) == expected


def test_signers_are_remembered_outside_etcd(store: PkiStore) -> None:
    assert store.signers() == ()

    store.save_signers(("10.0.0.1:4244", "[fd00::1]:4244"))

    assert store.signers() == ("10.0.0.1:4244", "[fd00::1]:4244")


def test_node_without_ca_keys_is_no_signer(store: PkiStore) -> None:
    Signer.create("east").save(store)
    store.ca_key_path(Authority.MESH).unlink()

    with pytest.raises(ConfigError, match=r"^no key of CA CN=meshnet east mesh CA is on this node"):
        Signer.load(store)
