"""`meshnet endpoint`: workloads' interfaces, their addresses and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from meshnet.cli import console
from meshnet.cli.arguments import (
    DEFAULT_NAMESPACE,
    LabelOption,
    NamespaceOption,
    OutputOption,
    choose_endpoint,
    endpoint_name,
    labels,
)
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output, Row, Tone
from meshnet.config import Paths
from meshnet.errors import ConfigError, UsageError

app = typer.Typer(
    help="Workloads' interfaces, addresses and labels.", rich_markup_mode=None, no_args_is_help=True
)

EndpointArgument = Annotated[
    str, typer.Argument(metavar="ENDPOINT", help="[namespace/]name, on this node.")
]

IFNAME_MAX = 15
"""IFNAMSIZ less its terminator."""


def _state_tone(endpoint: Row) -> Tone:
    return Tone.GOOD if endpoint["state"] == "ready" else Tone.WARN


LIST_COLUMNS = (
    Column("NAMESPACE", lambda endpoint: endpoint["namespace"]),
    Column("NAME", lambda endpoint: endpoint["name"]),
    Column("CLUSTER", lambda endpoint: endpoint["cluster"]),
    Column("NODE", lambda endpoint: endpoint["node"]),
    Column("STATE", lambda endpoint: endpoint["state"], tone=_state_tone),
    Column("IDENTITY", lambda endpoint: endpoint["identity"]),
    Column("IPV4", lambda endpoint: endpoint["ipv4"]),
    Column("IPV6", lambda endpoint: endpoint["ipv6"]),
    Column("ID", lambda endpoint: endpoint["id"], wide=True),
    Column("LABELS", lambda endpoint: endpoint["labels"], wide=True),
)

DETAIL_COLUMNS = (
    *LIST_COLUMNS,
    Column("PORTS", lambda endpoint: endpoint["ports"]),
    Column("AUDIT", lambda endpoint: endpoint["audit"]),
    Column("NETNS", lambda endpoint: endpoint["netns"]),
    Column("INTERFACE", lambda endpoint: endpoint["ifname"]),
    Column("HOST INTERFACE", lambda endpoint: endpoint["host_ifname"]),
    Column("PROCESS", lambda endpoint: endpoint["owner_pid"]),
    Column("LOG", lambda endpoint: endpoint["log"]),
)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="[namespace/]name.")],
    netns: Annotated[
        str, typer.Option("--netns", metavar="PATH", help="Network namespace to attach.")
    ],
    namespace: NamespaceOption = None,
    label: LabelOption = None,
    ifname: Annotated[str, typer.Option("--ifname", help="Name of the interface inside.")] = "eth0",
    output: OutputOption = Output.TABLE,
) -> None:
    """Attach a network namespace that exists; return when the endpoint is ready."""
    chosen, plain = endpoint_name(name, namespace)
    if not 1 <= len(ifname) <= IFNAME_MAX or "/" in ifname or " " in ifname:
        raise UsageError(
            f"--ifname {ifname!r} is no interface name: {IFNAME_MAX} characters at most, "
            "no '/' and no space"
        )
    if not Path(netns).exists():
        raise ConfigError(
            f"--netns {netns} does not exist: make it with `ip netns add`, or give "
            "/proc/PID/ns/net of a running process"
        )
    body = {
        "name": plain,
        "namespace": chosen or DEFAULT_NAMESPACE,
        "labels": labels(label),
        "ports": {},
        "netns": str(Path(netns).absolute()),
        "ifname": ifname,
        "owner_pid": None,
    }
    endpoint = AgentClient(Paths.from_environment()).post("endpoints", body=body)
    console.show_one(endpoint, DETAIL_COLUMNS, output)


@app.command("list")
def list_endpoints(
    namespace: NamespaceOption = None,
    all_nodes: Annotated[
        bool, typer.Option("--all-nodes", help="Those of this cluster, not of this node alone.")
    ] = False,
    all_clusters: Annotated[
        bool, typer.Option("--all-clusters", help="Those of every cluster of the mesh.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List endpoints of this node."""
    scope = "mesh" if all_clusters else "cluster" if all_nodes else "node"
    endpoints = [
        each
        for each in AgentClient(Paths.from_environment()).get("endpoints", scope=scope)
        if namespace in (None, each["namespace"])
    ]
    endpoints.sort(key=lambda each: (each["cluster"], each["namespace"], each["name"]))
    console.show(endpoints, LIST_COLUMNS, output)


@app.command("show")
def show(
    name: EndpointArgument,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one endpoint of this node."""
    endpoint = find(AgentClient(Paths.from_environment()), name, namespace)
    console.show_one(endpoint, DETAIL_COLUMNS, output)


@app.command("delete")
def delete(name: EndpointArgument, namespace: NamespaceOption = None) -> None:
    """Take an endpoint away. Its process, when it has one, is ended: TERM, 5 s, KILL."""
    client = AgentClient(Paths.from_environment())
    where, plain = resolve(client, name, namespace)
    client.delete("endpoints", where, plain)
    console.progress(f"endpoint {where}/{plain} is gone")


@app.command("label")
def label(
    name: EndpointArgument,
    changes: Annotated[
        list[str], typer.Argument(metavar="K=V|K-", help="Labels to set, and K- to take away.")
    ],
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change labels of a live endpoint; return when it obeys its new policy."""
    removed = [change[:-1] for change in changes if change.endswith("-") and "=" not in change]
    given = labels(change for change in changes if change[:-1] not in removed)
    if both := sorted(given.keys() & set(removed)):
        raise UsageError(f"label {both[0]!r} is both set and taken away")
    client = AgentClient(Paths.from_environment())
    where, plain = resolve(client, name, namespace)
    body = {"labels": {**given, **dict.fromkeys(removed)}}
    console.show_one(
        client.post("endpoints", where, plain, "amend", body=body), DETAIL_COLUMNS, output
    )


@app.command("audit")
def audit(
    name: EndpointArgument,
    off: Annotated[bool, typer.Option("--off", help="Deny again.")] = False,
    namespace: NamespaceOption = None,
) -> None:
    """Let through what policy would deny an endpoint, and report it with the verdict AUDIT."""
    client = AgentClient(Paths.from_environment())
    where, plain = resolve(client, name, namespace)
    client.post("endpoints", where, plain, "amend", body={"audit": not off})
    console.progress(f"endpoint {where}/{plain} is {'policed' if off else 'audited'}")


def resolve(client: AgentClient, text: str, namespace: str | None) -> tuple[str, str]:
    """Which endpoint of this node is meant: (namespace, name)."""
    known = client.get("endpoints", scope="node")
    return choose_endpoint(text, namespace, [(each["namespace"], each["name"]) for each in known])


def find(client: AgentClient, text: str, namespace: str | None) -> dict[str, Any]:
    """The details of the endpoint that is meant."""
    where, name = resolve(client, text, namespace)
    endpoint: dict[str, Any] = client.get("endpoints", where, name)
    return endpoint
