"""`meshnet bundle`: everything a maintainer needs, in one file, secrets removed.

What cannot be read is named in it with the reason, and the rest is there: a bundle is wanted
most when little works.
"""

from __future__ import annotations

import io
import json
import platform
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import attrs
import typer

from meshnet import __version__
from meshnet.cli import console
from meshnet.cli.client import AgentClient
from meshnet.config import Paths
from meshnet.errors import AlreadyExists, ConfigError, MeshnetError
from meshnet.logic.redaction import redacted

LOG_BYTES = 4 << 20
"""Of a log, its newest."""
COMMAND_S = 20
ANSWER_S = 60
"""A map of 250 000 rows takes a while."""

ANSWERS = (
    *("status", "mesh", "nodes", "identities", "services", "policies", "manifests", "drops"),
    *("drops/events", "seen", "config", "ca", "maps"),
)
"""What the agent tells, by the path under /v1/ that it tells it at."""
COMMANDS = {
    "links": "ip -d -s link",
    "addresses": "ip address",
    "routes": "ip route show table all",
    "routes-ipv6": "ip -6 route show table all",
    "rules": "ip rule",
    "neighbours": "ip neighbour",
    "sockets": "ss -tuanp",
    "nftables": "nft list ruleset",
    "hooks": "bpftool net",
    "programs": "bpftool prog",
    "sysctl": "sysctl -a --pattern ^net\\.(core|ipv4|ipv6)\\.",
}
RING = "events"
"""The one map without rows: the agent reads it, and tells as `drops/events`."""
FILES = {
    "os-release": "/etc/os-release",
    "kernel-command-line": "/proc/cmdline",
    "memory": "/proc/meminfo",
    "mounts": "/proc/mounts",
}


@attrs.frozen
class Part:
    """One file of the bundle. `read` raises MeshnetError, OSError, ValueError (it is no text) or
    SubprocessError."""

    name: str
    read: Callable[[], str]


def register(app: typer.Typer) -> None:
    app.command("bundle")(bundle)


def bundle(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="A .tar.gz that is not there yet."),
    ] = None,
) -> None:
    """Write all that a maintainer needs to one file, secrets removed, and print its name.

    In it: what the agent and the dataplane hold, the agent's log, this node's settings and
    certificates, and the host's links, routes and rules. Look through it before you send it:
    names, labels and addresses are in it as they are.
    """
    paths = Paths.from_environment()
    now = datetime.now(UTC)
    target = out or Path(f"meshnet-bundle-{platform.node()}-{now:%Y%m%dT%H%M%SZ}.tar.gz")
    try:
        if target.exists():
            raise AlreadyExists(f"{target} is there already: choose another name with --out")
        missing = write(target, list(parts(paths)), now)
    except OSError as error:
        raise ConfigError(
            f"{target} cannot be written: {error.strerror}: choose another place with --out"
        ) from error
    for name, reason in missing.items():
        console.progress(f"without {name}: {reason}")
    console.progress("look through it before you send it: names and addresses are in it")
    typer.echo(target)


def write(target: Path, wanted: list[Part], now: datetime) -> dict[str, str]:
    """The file in one piece or not at all, for its owner to read; what is not in it, and why.
    Raises OSError: it cannot be written there, or was made by somebody else meanwhile."""
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as directory:
        file = Path(directory, target.name)
        file.touch(mode=0o600)
        with tarfile.open(file, mode="w:gz") as archive:
            for part in wanted:
                try:
                    text = part.read()
                except (MeshnetError, OSError, ValueError, subprocess.SubprocessError) as error:
                    missing[part.name] = str(error)
                    continue
                _add(archive, part.name, redacted(text), now)
            about = {"version": __version__, "time": now.isoformat(), "missing": missing}
            _add(archive, "bundle.json", json.dumps(about, indent=2), now)
        target.touch(exist_ok=False)  # never over what is there; not every file system has links
        file.replace(target)
    return missing


def parts(paths: Paths) -> Iterator[Part]:
    """Every file that a bundle of this node would have."""
    agent = AgentClient(paths, patient=False)
    for answer in ANSWERS:
        name = answer.replace("/", "-")
        yield Part(f"agent/{name}.json", partial(_ask, agent, answer))
    yield Part("agent/endpoints.json", partial(_ask, agent, "endpoints", scope="mesh"))
    yield from _maps(agent)
    yield Part("meshnet.toml", paths.config.read_text)
    yield Part("agent.log", partial(tail, paths.log / "agent.log"))
    for certificate in sorted(paths.pki.glob("*.crt")):
        yield Part(f"pki/{certificate.name}", certificate.read_text)
    for name, command in COMMANDS.items():
        yield Part(f"host/{name}.txt", partial(_said, command))
    for name, file in FILES.items():
        yield Part(f"host/{name}.txt", Path(file).read_text)
    yield Part("host/kernel.txt", lambda: " ".join(platform.uname()))


def _maps(agent: AgentClient) -> Iterator[Part]:
    try:
        names = {row["name"] for row in agent.get("maps")} - {RING}
    except MeshnetError:
        return  # the part `maps` says why
    for name in sorted(names):
        yield Part(f"maps/{name}.json", partial(_ask, agent, f"maps/{name}"))


def tail(log: Path) -> str:
    """Its newest lines, LOG_BYTES at most."""
    with log.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        if size > LOG_BYTES:
            file.readline()  # the rest of a line, whose beginning is cut off
        return file.read().decode(errors="replace")


def _ask(agent: AgentClient, answer: str, **query: str) -> str:
    told = agent.get(*answer.split("/"), timeout_s=ANSWER_S, **query)
    return json.dumps(told, indent=1, sort_keys=True)


def _said(command: str) -> str:
    done = subprocess.run(
        command.split(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=COMMAND_S,
        check=False,
    )
    return f"$ {command}\n{done.stdout}"


def _add(archive: tarfile.TarFile, name: str, text: str, now: datetime) -> None:
    content = text.encode()
    entry = tarfile.TarInfo(f"meshnet-bundle/{name}")
    entry.size = len(content)
    entry.mtime = int(now.timestamp())
    entry.mode = 0o600
    archive.addfile(entry, io.BytesIO(content))
