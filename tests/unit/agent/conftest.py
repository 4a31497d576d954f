from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshnet.agent import publication
from meshnet.netlink import memory
from tests.support.node import Node
from tests.support.policed import World


@pytest.fixture(autouse=True)
def _namespaces_are_files_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not of the machine that runs it."""
    monkeypatch.setattr(memory, "RUN_DIR", str(tmp_path))


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """A node whose agent has proved its PodCIDRs."""
    monkeypatch.setattr(publication, "NEW_IDENTITY_SETTLE_S", 0.0)
    node = Node(tmp_path)
    await node.prove()
    yield node
    for task in node.tasks:
        task.cancel()


@pytest.fixture
async def world(node: Node) -> World:
    """Such a node with endpoints web, api and other."""
    made = World(node)
    await made.start("web", "api", "other")
    return made
