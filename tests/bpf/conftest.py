"""Every test here runs real programs, so what the kernel lacks fails it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bpf import Node, bpf_file_system, deployed
from tests.support.talk import Talk


@pytest.fixture(scope="session")
def pins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the programs stay pinned from one test to the next."""
    with bpf_file_system(tmp_path_factory.mktemp("bpf")) as mounted:
        yield mounted / "meshnet"


@pytest.fixture
def east(pins: Path) -> Iterator[Node]:
    """A node with empty counters and conntrack; its programs were loaded by the first test."""
    with deployed(pins) as node:
        yield node


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Node]:
    """A node whose pins nobody had before, for tests of loading itself."""
    with bpf_file_system(tmp_path / "bpf") as mounted, deployed(mounted / "meshnet") as node:
        yield node


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def talk(east: Node, request: pytest.FixtureRequest) -> Talk:
    """An endpoint here and one elsewhere, in both families."""
    return Talk(east, request.param)
