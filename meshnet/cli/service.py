"""`meshnet service`: one name and one address for many backends."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshnet.cli import console
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output, Row
from meshnet.config import Paths

app = typer.Typer(
    help="Services: one name and one address for many backends. `meshnet apply` makes them.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

COLUMNS = (
    Column("NAMESPACE", lambda row: row["namespace"]),
    Column("NAME", lambda row: row["name"]),
    Column("TYPE", lambda row: row["type"]),
    Column("ADDRESSES", lambda row: _addresses(row)),
    Column("PORTS", lambda row: _ports(row)),
    Column("BACKENDS", lambda row: _active(row)),
    Column("GLOBAL", lambda row: row["global"]),
)
BACKENDS = (
    Column("BACKEND", lambda row: _host_port(row)),
    Column("CLUSTER", lambda row: row["cluster"]),
    Column("NODE", lambda row: row["node"]),
    Column("ENDPOINT", lambda row: row["name"]),
    Column("STATE", lambda row: row["state"]),
    Column("HITS", lambda row: row["hits"]),
    Column("WHY", lambda row: row["reason"]),
)


@app.command("list")
def list_services(output: OutputOption = Output.TABLE) -> None:
    """List every service of this cluster, with how many of its backends take clients."""
    console.show(AgentClient(Paths.from_environment()).get("services"), COLUMNS, output)


@app.command("show")
def show_service(
    name: Annotated[str, typer.Argument(metavar="[NAMESPACE/]NAME")],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", envvar="MESHNET_NAMESPACE", metavar="NS")
    ] = "default",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one service: where each backend is, how many clients it was given by this node, and
    why it is out when it is."""
    where, _, what = name.rpartition("/")
    row = AgentClient(Paths.from_environment()).get("services", where or namespace, what)
    if not output.for_people:
        console.show_data(row, output)
        return
    console.show_one(row, COLUMNS, output)
    print()
    console.show(row["backends"], BACKENDS, output)


def _addresses(row: Row) -> Any:
    if row["headless"]:
        return "None"
    return row["external_name"] or row["addresses"]


def _ports(row: Row) -> list[str]:
    return list(dict.fromkeys(f"{each['port']}/{each['protocol']}" for each in row["frontends"]))


def _active(row: Row) -> str:
    active = sum(each["state"] == "active" for each in row["backends"])
    return f"{active}/{len(row['backends'])}"


def _host_port(row: Row) -> str:
    host = f"[{row['address']}]" if ":" in row["address"] else row["address"]
    return f"{host}:{row['port']}/{row['protocol']}"
