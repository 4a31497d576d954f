"""`meshnet identity`: sets of labels, each with its number."""

from __future__ import annotations

from typing import Annotated

import typer

from meshnet.cli import console
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output
from meshnet.config import Paths

app = typer.Typer(
    help="Security identities: sets of labels with a number.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

COLUMNS = (
    Column("IDENTITY", lambda identity: identity["number"]),
    Column("CLUSTER", lambda identity: identity["cluster"]),
    Column("LABELS", lambda identity: identity["labels"]),
)


@app.command("list")
def list_identities(output: OutputOption = Output.TABLE) -> None:
    """List every identity this node knows, of all clusters."""
    identities = AgentClient(Paths.from_environment()).get("identities")
    console.show(sorted(identities, key=lambda each: each["number"]), COLUMNS, output)


@app.command("show")
def show_identity(
    number: Annotated[int, typer.Argument(metavar="N", help="Its number.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one identity."""
    identity = AgentClient(Paths.from_environment()).get("identities", number)
    console.show_one(identity, COLUMNS, output)
