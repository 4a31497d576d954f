"""Every test here runs real programs, so what the kernel lacks fails it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bpf import Node, deployed


@pytest.fixture
def east(tmp_path: Path) -> Iterator[Node]:
    with deployed(tmp_path / "bpf") as node:
        yield node
