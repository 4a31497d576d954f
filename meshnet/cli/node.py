"""`meshnet node`: the hosts that run an agent."""

from __future__ import annotations

from typing import Annotated

import typer

from meshnet.cli import console
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output
from meshnet.config import Paths

app = typer.Typer(help="The hosts that run an agent.", rich_markup_mode=None, no_args_is_help=True)

NodeArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the node.")]

COLUMNS = (
    Column("NODE", lambda node: node["name"]),
    Column("CLUSTER", lambda node: node["cluster"]),
    Column("ADDRESSES", lambda node: node["addresses"]),
    Column("PODCIDRS", lambda node: node["pod_cidrs"]),
)


@app.command("list")
def list_nodes(output: OutputOption = Output.TABLE) -> None:
    """List the nodes of every cluster of the mesh."""
    nodes = AgentClient(Paths.from_environment()).get("nodes")
    console.show(sorted(nodes, key=lambda node: (node["cluster"], node["name"])), COLUMNS, output)


@app.command("show")
def show_node(name: NodeArgument, output: OutputOption = Output.TABLE) -> None:
    """Show one node."""
    console.show_one(AgentClient(Paths.from_environment()).get("nodes", name), COLUMNS, output)


@app.command("delete")
def delete_node(
    name: NodeArgument,
    revoke: Annotated[
        bool,
        typer.Option(
            "--revoke", help="Throw it out, also a live one: its certificates are refused."
        ),
    ] = False,
) -> None:
    """Forget a node of this cluster that is gone for good: its state and its PodCIDRs.

    A node that still runs leaves by itself: `meshnet cluster leave` there.
    """
    agent = AgentClient(Paths.from_environment())
    if revoke:
        agent.delete("nodes", name, revoke="1")
        console.progress(f"node {name} is thrown out: etcd refuses it, its keys are gone")
        return
    agent.delete("nodes", name)
    console.progress(f"node {name} is forgotten, its PodCIDRs are free")
