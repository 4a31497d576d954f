"""The book of labs: written first, claimed once, found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshnet.errors import AlreadyExists, ConfigError, LabError, NotFound, UsageError
from topology import containerlab, labs, state
from topology.model import RuntimeKind
from topology.state import LabState, NodeState


@pytest.fixture(autouse=True)
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "LABS", tmp_path / "labs")
    return tmp_path / "labs"


def lab(name: str, *nodes: str) -> LabState:
    return LabState(
        name=name,
        file=f"/labs/{name}.clab.yml",
        runtime=RuntimeKind.NETNS,
        nodes={node: NodeState(kind="linux", env={"A": "b"}, labels={}) for node in nodes},
    )


def test_an_entry_is_read_back_as_it_was_written() -> None:
    state.create(lab("one", "a", "b"))
    assert state.load("one") == lab("one", "a", "b")
    assert state.load_all() == [lab("one", "a", "b")]


def test_a_name_is_claimed_once_and_the_first_entry_stays(book: Path) -> None:
    state.create(lab("one", "a"))
    with pytest.raises(AlreadyExists, match=r"lab 'one' exists already.*meshnet lab down one"):
        state.create(lab("one", "b"))
    assert list(state.load("one").nodes) == ["a"]
    assert [path.name for path in book.iterdir()] == ["one"]


def test_an_unknown_lab_is_not_found_and_the_known_ones_are_told() -> None:
    state.create(lab("one", "a"))
    with pytest.raises(NotFound, match=r"no lab is called 'two' \(labs: one\)"):
        state.load("two")


def test_a_damaged_entry_says_how_to_get_rid_of_it(book: Path) -> None:
    state.create(lab("one", "a"))
    (book / "one" / "lab.json").write_text("{")
    with pytest.raises(LabError, match=r"damaged.*meshnet lab down one"):
        state.load("one")


def test_what_a_killed_up_drafted_is_swept_by_down(book: Path) -> None:
    (book / ".one.4711").mkdir(parents=True)
    assert labs.down("one") == "one"
    assert not book.exists()
    with pytest.raises(NotFound):
        labs.down("one")


def test_a_node_is_found_without_its_lab_unless_two_labs_have_one() -> None:
    state.create(lab("one", "a", "b"))
    state.create(lab("two", "b"))
    assert labs.find("a", None)[0].name == "one"
    assert labs.find("b", "two")[0].name == "two"
    with pytest.raises(UsageError, match="labs one, two have a node 'b' each: say which by --lab"):
        labs.find("b", None)
    with pytest.raises(NotFound, match="no lab node is called 'c'"):
        labs.find("c", None)


def test_a_file_stands_for_the_lab_it_names(tmp_path: Path) -> None:
    file = tmp_path / "x.clab.yml"
    file.write_text("name: one\ntopology: {nodes: {a: {kind: from-the-future}}}\n")
    assert labs.name_of(str(file)) == "one"
    assert labs.name_of("one") == "one"
    file.write_text("topology: {}\n")
    with pytest.raises(UsageError, match="gives no lab name"):
        labs.name_of(str(file))


FILE = "name: one\ntopology: {nodes: {a: {kind: linux, image: alpine}}}\n"


def test_containerlab_that_is_not_installed_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"containerlab is not installed: see https://.*install"):
        labs.up(tmp_path / "x.yml", RuntimeKind.CONTAINERLAB, print, print)


@pytest.mark.parametrize("status", [0, 3])
def test_containerlab_gets_the_very_same_file_and_a_failed_deploy_is_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, book: Path, status: int
) -> None:
    command, said = tmp_path / "containerlab", tmp_path / "said"
    command.write_text(f'#!/bin/sh\necho "$@" >> {said}\n[ $1 != deploy ] || exit {status}\n')
    command.chmod(0o755)
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\n[ "$*" = "inspect clab-one-a" ] && echo \'[{"State":{"Pid":42}}]\'\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    file = tmp_path / "x.clab.yml"
    file.write_text(FILE)
    if status:
        with pytest.raises(LabError, match="failed with status 3"):
            labs.up(file, RuntimeKind.CONTAINERLAB, print, print)
    else:
        found = labs.up(file, RuntimeKind.CONTAINERLAB, print, print)
        assert found.nodes["a"].pid == 42
        assert labs.is_up(found, "a")
        assert containerlab.exec_argv(found, "a", ["ls"], tty=False)[-2:] == ["clab-one-a", "ls"]
        labs.down("one")
    assert said.read_text().splitlines() == [
        f"deploy -t {file}",
        f"destroy -t {file} --cleanup",
    ]
    assert not book.exists()
