"""Where the bytecode comes from, and what is said when there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from meshnet.dataplane import artifact, schema
from meshnet.errors import CapabilityMissing, CompileFailed, LayoutDrift

CODE = {name: bytes([0x95] + [0] * 7) for name in schema.PROGRAMS}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source tree of its own, so that a test may break it."""
    return Path(shutil.copytree(artifact.SOURCE, tmp_path / "bpf"))


def stored(directory: Path, source: Path) -> Path:
    digest = artifact.source_digest(source)
    assert digest is not None
    path = directory / artifact.file_name(digest)
    artifact.write(path, artifact.Artifact(digest, CODE, {"bcc": "0.26.0", "llvm": "14"}))
    return path


def test_an_artifact_is_read_as_it_was_written(tmp_path: Path, source: Path) -> None:
    found = artifact.read(stored(tmp_path, source))

    assert found.programs == CODE
    assert found.compiler == {"bcc": "0.26.0", "llvm": "14"}
    assert found.digest == artifact.source_digest(source)


def test_the_packages_artifact_is_taken_before_the_caches(tmp_path: Path, source: Path) -> None:
    shipped = stored(tmp_path / "shipped", source)
    other = attrs.evolve(artifact.read(shipped), compiler={"bcc": "other"})
    artifact.write(tmp_path / "cache" / shipped.name, other)

    found = artifact.find(tmp_path / "cache", shipped=shipped.parent, source=source)

    assert found.compiler["bcc"] == "0.26.0"


def test_a_changed_source_has_another_name(source: Path) -> None:
    before = artifact.source_digest(source)
    header = source / "include" / "vxlan.h"
    header.write_text(header.read_text() + "\n")

    assert artifact.source_digest(source) != before


def test_without_sources_the_one_shipped_artifact_is_taken(tmp_path: Path, source: Path) -> None:
    shipped = stored(tmp_path / "shipped", source)

    found = artifact.find(tmp_path, shipped=shipped.parent, source=tmp_path / "none")

    assert found.programs == CODE


def test_without_sources_and_artifact_the_operator_is_told(tmp_path: Path) -> None:
    with pytest.raises(CapabilityMissing, match=r"0 artifacts instead of one.*install meshnet"):
        artifact.find(tmp_path, shipped=tmp_path, source=tmp_path / "none")


def test_an_artifact_of_another_version_is_refused(tmp_path: Path, source: Path) -> None:
    path = stored(tmp_path, source)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "other"}))

    with pytest.raises(LayoutDrift, match="made for another version"):
        artifact.read(path)


def test_c_that_does_not_compile_is_named_with_file_and_line(tmp_path: Path, source: Path) -> None:
    broken = source / "to_tunnel.c"
    broken.write_text(broken.read_text().replace("choose_node(pkt);", "choose_nod(pkt);"))

    with pytest.raises(CompileFailed, match=r"^bpf/to_tunnel.c did not compile: to_tunnel\.c:\d+"):
        artifact.find(tmp_path / "cache", shipped=tmp_path, source=source)
    assert list((tmp_path / "cache").glob("*")) == []


def test_without_bcc_the_operator_is_told_what_to_install(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `bcc` that cannot be imported, before the real one."""
    (tmp_path / "bcc.py").write_text("raise ModuleNotFoundError(\"No module named 'bcc'\")")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path.cwd()}")

    with pytest.raises(CapabilityMissing, match="apt install python3-bpfcc"):
        artifact.find(tmp_path / "cache", shipped=tmp_path, source=source)


def test_the_agents_imports_stay_light() -> None:
    """Imports alone are start-up time and memory of every agent."""
    code = "import sys, meshnet.dataplane.kernel; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    heavy = {"bcc", "grpc", "pyroute2", "cryptography", "typer", "meshnet.dataplane.compiler"}
    assert heavy.isdisjoint(done.stdout.split())
