"""Arguments and options that several commands share: their types, and how they are read.

Bad input is refused here, before the agent is asked, with the rules of `model`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from meshnet.cli.console import Output
from meshnet.errors import ConfigError, InvalidName, NotFound, UsageError
from meshnet.model.identity import check_user_label
from meshnet.model.names import rfc1123_label

DEFAULT_NAMESPACE = "default"

OutputOption = Annotated[
    Output, typer.Option("--output", "-o", envvar="MESHNET_OUTPUT", help="Form of the answer.")
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        envvar="MESHNET_NAMESPACE",
        metavar="NS",
        help="Namespace of the endpoint.",
    ),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="K=V", help="A label for policy to select; repeatable."),
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until it is ready.")]
TimeoutOption = Annotated[
    str, typer.Option("--timeout", metavar="DURATION", help="How long --wait waits.")
]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_PORT = re.compile(r"^(?P<name>[^=]+)=(?P<port>\d+)/(?P<protocol>tcp|udp|sctp)$")


def duration_s(text: str) -> float:
    """Seconds in `90s`, `1h30m`, `500ms`, or a bare number of seconds."""
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else _sum_of_parts(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a duration: give a number with ms, s, m, h or d, such as 60s or 1h30m"
        ) from error


def _sum_of_parts(text: str) -> float:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def labels(given: Iterable[str] | None) -> dict[str, str]:
    """`K=V ...`, each checked: reserved keys never reach the agent."""
    found: dict[str, str] = {}
    for item in given or ():
        key, separator, value = item.partition("=")
        if not separator:
            raise UsageError(f"label {item!r} has no '=': give KEY=VALUE, such as app=web")
        check_user_label(key, value)
        if found.setdefault(key, value) != value:
            raise UsageError(f"label {key!r} is given twice, as {found[key]!r} and {value!r}")
    return found


def ports(given: Iterable[str] | None) -> dict[str, str]:
    """`NAME=8080/tcp ...` -> name: `8080/tcp`."""
    found: dict[str, str] = {}
    for item in given or ():
        match = _PORT.match(item)
        if match is None or not 1 <= int(match["port"]) <= 65535:
            raise UsageError(f"port {item!r} is not NAME=PORT/PROTOCOL, such as http=8080/tcp")
        name = rfc1123_label("port", match["name"])
        if len(name) > 15:
            raise InvalidName("port", name, "15 characters at most (RFC 6335)")
        if name in found:
            raise UsageError(f"port {name!r} is given twice, as {found[name]} and {item}")
        found[name] = f"{int(match['port'])}/{match['protocol']}"
    return found


def secret(text: str) -> str:
    """A secret given as it is, as `file:PATH`, or as `-` for standard input.

    An argument can be read by every user of the host (`ps`); a file or a pipe cannot.
    """
    if text == "-":
        return sys.stdin.readline().strip()
    if text.startswith("file:"):
        path = Path(text.removeprefix("file:"))
        try:
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read for a secret: {error}") from error
    return text.strip()


def endpoint_name(text: str, namespace: str | None) -> tuple[str | None, str]:
    """`[namespace/]name` and `-n` -> (namespace or None, name), both checked."""
    before, separator, name = text.rpartition("/")
    if separator and namespace not in (None, before):
        raise UsageError(f"endpoint {text!r} and --namespace {namespace} name two namespaces")
    chosen = before if separator else namespace
    if chosen is not None:
        rfc1123_label("namespace", chosen)
    return chosen, rfc1123_label("endpoint", name)


def choose_endpoint(
    text: str, namespace: str | None, known: Iterable[tuple[str, str]]
) -> tuple[str, str]:
    """Which of this node's endpoints (namespace, name) the operator means.

    Unqualified: the one in `default`, else the only one of that name.

    Raises:
        NotFound: no endpoint of that name is here.
        UsageError: several are, in namespaces other than `default`.
    """
    wanted, name = endpoint_name(text, namespace)
    homes = sorted(where for where, what in known if what == name)
    if wanted is None and DEFAULT_NAMESPACE in homes:
        wanted = DEFAULT_NAMESPACE
    if wanted is None and len(homes) > 1:
        candidates = ", ".join(f"{home}/{name}" for home in homes)
        raise UsageError(f"endpoint {name!r} is ambiguous on this node: {candidates}; say which")
    if wanted is None and homes:
        wanted = homes[0]
    if wanted is None or wanted not in homes:
        shown = name if wanted is None else f"{wanted}/{name}"
        raise NotFound(
            f"endpoint {shown} is not on this node: `meshnet endpoint list` shows what is"
        )
    return wanted, name
