"""`meshnet run`, `exec` and `logs`: commands inside endpoints.

Standard streams pass byte for byte, so nothing is printed here but errors and the name
of a detached endpoint. The exit status is the command's own; 125 is ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from meshnet.cli import console, process
from meshnet.cli.arguments import (
    DEFAULT_NAMESPACE,
    LabelOption,
    NamespaceOption,
    endpoint_name,
    labels,
    ports,
)
from meshnet.cli.client import AgentClient
from meshnet.cli.endpoint import EndpointArgument, find
from meshnet.cli.resolv_conf import use_resolvers
from meshnet.config import Paths
from meshnet.errors import ConfigError, MeshnetError, NotFound, UsageError
from meshnet.host.cgroup import Cgroup, hierarchy
from meshnet.host.namespace import Namespace, enter_path
from meshnet.model.kernel import ENDPOINT_CGROUP
from meshnet.model.names import LABEL_MAX

CommandArgument = Annotated[
    list[str], typer.Argument(metavar="CMD", help="The command and its arguments, after `--`.")
]
TtyOption = Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal of its own.")]

FOLLOW_S = 0.2

# what stands after CMD belongs to CMD, with or without `--` before it
COMMAND_SETTINGS = {"allow_interspersed_args": False}


def register(app: typer.Typer) -> None:
    app.command("run", context_settings=COMMAND_SETTINGS)(run)
    app.command("exec")(exec_)
    app.command("logs")(logs)


@contextlib.contextmanager
def own_failure() -> Iterator[None]:
    """What fails here is told apart from the command's own status, but for wrong usage."""
    try:
        yield
    except (UsageError, ConfigError):
        raise
    except MeshnetError as error:
        if error.exit_code not in (process.NOT_EXECUTABLE, process.NOT_FOUND):
            error.exit_code = process.OWN_FAILURE
        raise


def run(
    command: CommandArgument,
    name: Annotated[
        str | None, typer.Option("--name", help="Its name; by default made from CMD.")
    ] = None,
    namespace: NamespaceOption = None,
    label: LabelOption = None,
    port: Annotated[
        list[str] | None,
        typer.Option("--port", metavar="NAME=PORT/PROTOCOL", help="A named port; repeatable."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when CMD runs; print namespace/name.")
    ] = False,
    tty: TtyOption = False,
) -> None:
    """Run CMD as a new endpoint, with an address and an identity of its own.

    CMD starts when the endpoint is ready; the endpoint ends with CMD.
    """
    if detach and tty:
        raise UsageError("--detach and --tty exclude each other: a terminal needs somebody at it")
    chosen, plain = endpoint_name(name or name_for(command[0]), namespace)
    body = {
        "name": plain,
        "namespace": chosen or DEFAULT_NAMESPACE,
        "labels": labels(label),
        "ports": ports(port),
        "netns": None,
        "ifname": "eth0",
        "owner_pid": os.getpid(),
    }
    paths = Paths.from_environment()
    client = AgentClient(paths)
    with own_failure():
        endpoint = client.post("endpoints", body=body)
        if detach:
            _start_detached(client, paths, endpoint, command)
            typer.echo(f"{endpoint['namespace']}/{plain}")
            return
        code = _run_here(client, endpoint, command, tty=tty)
    raise typer.Exit(code)


def name_for(program: str) -> str:
    """A name made from a command's, unlike that of its next run: `nginx-3fa9c1`."""
    words = re.sub(r"[^a-z0-9]+", "-", Path(program).name.lower()).strip("-")
    suffix = os.urandom(3).hex()
    return f"{words[: LABEL_MAX - len(suffix) - 1].rstrip('-') or 'run'}-{suffix}"


def _run_here(
    client: AgentClient, endpoint: dict[str, Any], command: list[str], *, tty: bool
) -> int:
    """Run it in the foreground; the endpoint is gone when this returns."""
    try:
        return _supervised(endpoint, command, tty=tty, owned=_owner_of(client, endpoint))
    finally:
        _take_away(client, endpoint)


def _take_away(client: AgentClient, endpoint: dict[str, Any]) -> None:
    """An agent that saw its owner end, or that is gone and will see it when it is back,
    needs no telling."""
    try:
        client.delete("endpoints", endpoint["namespace"], endpoint["name"])
    except NotFound:
        pass
    except MeshnetError as error:
        console.warn(f"the endpoint was left to the agent to take away: {error}")


def _owner_of(
    client: AgentClient, endpoint: dict[str, Any], log: str | None = None
) -> Callable[[int], None]:
    """Tells the agent which process the endpoint lives with."""

    def owned(pid: int) -> None:
        body = {"owner_pid": pid, "log": log}
        client.patch("endpoints", endpoint["namespace"], endpoint["name"], body=body)

    return owned


def _supervised(
    endpoint: dict[str, Any],
    command: list[str],
    *,
    tty: bool,
    owned: Callable[[int], None] = lambda _pid: None,
) -> int:
    """Run the command in the endpoint, with our streams or a terminal of its own."""
    sys.stdout.flush()
    if not tty:
        child = process.hold(command, lambda: enter(endpoint))
        _let_go(child, owned)
        return child.supervise()

    from meshnet.cli.terminal import Terminal

    terminal = Terminal.open()

    def enter_with_terminal() -> None:
        terminal.adopt()
        enter(endpoint)

    child = process.hold(command, enter_with_terminal)
    with terminal.joined():
        _let_go(child, owned)
        return child.supervise(on_resize=terminal.resize)


def _let_go(child: process.HeldProcess, owned: Callable[[int], None]) -> None:
    try:
        owned(child.pid)
    except BaseException:
        child.abandon()
        raise
    child.release()


def _start_detached(
    client: AgentClient, paths: Paths, endpoint: dict[str, Any], command: list[str]
) -> None:
    """Start it in a session of its own, its output in a file; returns when it runs."""
    log = paths.run / "logs" / f"{endpoint['namespace']}.{endpoint['name']}.log"
    log.parent.mkdir(mode=0o750, parents=True, exist_ok=True)

    def enter_detached() -> None:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o640)
        for source, target in ((nothing, 0), (file, 1), (file, 2)):
            os.dup2(source, target)
        enter(endpoint)

    try:
        child = process.hold(command, enter_detached)
        _let_go(child, _owner_of(client, endpoint, str(log)))
    except BaseException:
        _take_away(client, endpoint)
        raise


def exec_(
    endpoint: EndpointArgument,
    command: CommandArgument,
    namespace: NamespaceOption = None,
    tty: TtyOption = False,
) -> None:
    """Run CMD in the namespaces of an endpoint of this node."""
    with own_failure():
        found = find(AgentClient(Paths.from_environment()), endpoint, namespace)
        if not tty:
            enter(found)
            process.replace(command)
        code = _supervised(found, command, tty=True)
    raise typer.Exit(code)


def logs(
    endpoint: EndpointArgument,
    namespace: NamespaceOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the endpoint ends.")
    ] = False,
) -> None:
    """Print what a detached command wrote to stdout and stderr."""
    client = AgentClient(Paths.from_environment())
    found = find(client, endpoint, namespace)
    if not found["log"]:
        raise NotFound(
            f"endpoint {found['namespace']}/{found['name']} has no log: only a command of "
            "`meshnet run --detach` has one"
        )
    with open(found["log"], "rb") as log:
        while True:
            shutil.copyfileobj(log, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            if not follow:
                return
            follow = Path(f"/proc/{found['owner_pid']}").exists()
            if follow:
                time.sleep(FOLLOW_S)
            # and once more after its end: its last words


def enter(endpoint: dict[str, Any]) -> None:
    """Move this process into the endpoint: its cgroup, where sockets are balanced, and its
    network namespace."""
    group = Cgroup(hierarchy()).child(ENDPOINT_CGROUP)
    group.create()
    group.enter()
    enter_path(endpoint["netns"], Namespace.NET)
    use_resolvers(endpoint["namespace"], endpoint["resolvers"])
