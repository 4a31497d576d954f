"""Every test here runs real programs, so what the kernel lacks fails it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.asking import Asking
from tests.support.bpf import Node, bpf_file_system, deployed
from tests.support.talk import Talk
from tests.support.world import EXEMPT, FEW_PORTS, POOL, Visit, route_to_the_world


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


@pytest.fixture(scope="session")
def world_pins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same for the programs of a node that masquerades."""
    with bpf_file_system(tmp_path_factory.mktemp("world")) as mounted:
        yield mounted / "meshnet"


@pytest.fixture
def masquerading(world_pins: Path) -> Iterator[Node]:
    """A node that hides its endpoints behind its own address, and routes to the world."""
    with deployed(world_pins, masquerade_ports=POOL, unmasqueraded=EXEMPT) as node:
        route_to_the_world()
        yield node


@pytest.fixture(scope="session")
def cramped_pins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with bpf_file_system(tmp_path_factory.mktemp("cramped")) as mounted:
        yield mounted / "meshnet"


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def cramped(cramped_pins: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A visit to the world by a node that has four ports for it."""
    with deployed(cramped_pins, masquerade_ports=FEW_PORTS) as node:
        route_to_the_world()
        yield Visit(node, request.param)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Node]:
    """A node whose pins nobody had before, for tests of loading itself."""
    with bpf_file_system(tmp_path / "bpf") as mounted, deployed(mounted / "meshnet") as node:
        yield node


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def visit(masquerading: Node, request: pytest.FixtureRequest) -> Visit:
    """An endpoint here and a server in the world, in both families."""
    return Visit(masquerading, request.param)


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def talk(east: Node, request: pytest.FixtureRequest) -> Talk:
    """An endpoint here and one elsewhere, in both families."""
    return Talk(east, request.param)


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def asking(east: Node, request: pytest.FixtureRequest) -> Asking:
    """An endpoint here that asks a service, in both families."""
    return Asking(east, request.param)
