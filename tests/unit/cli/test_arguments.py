"""How durations, labels, ports, secrets and endpoint names are read."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.cli import arguments
from meshnet.cli.run import name_for
from meshnet.errors import InvalidLabel, InvalidName, NotFound, UsageError
from meshnet.model.names import rfc1123_label


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("1h", 3600), ("1h30m", 5400), ("500ms", 0.5), ("2.5", 2.5), ("7d", 604800)],
)
def test_duration_has_a_unit_or_is_seconds(text: str, seconds: float) -> None:
    assert arguments.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-5s", "1x", "1h 30m", "1.2.3", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        arguments.duration_s(text)


def test_label_value_may_be_empty_or_hold_no_second_meaning() -> None:
    assert arguments.labels(["app=web", "empty=", "example.com/tier=a"]) == {
        "app": "web",
        "empty": "",
        "example.com/tier": "a",
    }
    with pytest.raises(InvalidLabel):
        arguments.labels(["a=b=c"])
    with pytest.raises(UsageError, match="given twice"):
        arguments.labels(["app=web", "app=db"])


def test_ports_are_named_numbered_and_of_a_protocol() -> None:
    assert arguments.ports(["http=8080/tcp", "dns=053/udp"]) == {
        "http": "8080/tcp",
        "dns": "53/udp",
    }
    for bad in ("8080/tcp", "http=65536/tcp", "http=80", "http=80/icmp"):
        with pytest.raises(UsageError):
            arguments.ports([bad])
    with pytest.raises(InvalidName, match="15 characters at most"):
        arguments.ports(["abcdefghijklmnop=1/tcp"])


def test_secret_comes_as_it_is_from_a_file_or_from_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("mnt1.abc\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("mnt1.def\nrest"))
    assert arguments.secret("mnt1.xyz") == "mnt1.xyz"
    assert arguments.secret(f"file:{tmp_path / 'token'}") == "mnt1.abc"
    assert arguments.secret("-") == "mnt1.def"


def test_unqualified_endpoint_is_that_of_default_else_the_only_one() -> None:
    known = [("default", "web"), ("blue", "web"), ("blue", "db"), ("a", "x"), ("b", "x")]
    assert arguments.choose_endpoint("web", None, known) == ("default", "web")
    assert arguments.choose_endpoint("db", None, known) == ("blue", "db")
    assert arguments.choose_endpoint("blue/web", None, known) == ("blue", "web")
    assert arguments.choose_endpoint("web", "blue", known) == ("blue", "web")
    with pytest.raises(UsageError, match="a/x, b/x"):
        arguments.choose_endpoint("x", None, known)
    with pytest.raises(NotFound, match="endpoint default/db is not on this node"):
        arguments.choose_endpoint("db", "default", known)


@given(st.text())
def test_the_name_made_from_any_command_is_a_name(program: str) -> None:
    name = name_for(program)
    assert rfc1123_label("endpoint", name) == name


def test_the_name_made_from_a_command_says_which() -> None:
    assert name_for("/usr/bin/python3.11").startswith("python3-11-")
    assert name_for("nc") != name_for("nc")
