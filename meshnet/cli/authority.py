"""`meshnet cluster ca`: the CAs of this cluster, and their replacement."""

from __future__ import annotations

import typer

from meshnet.cli import console
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output, Row
from meshnet.config import Paths

app = typer.Typer(
    help="The CAs of this cluster, and their replacement.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

CA_COLUMNS = (
    Column("CA", lambda ca: ca["authority"]),
    Column("NAME", lambda ca: ca["name"]),
    Column("FINGERPRINT", lambda ca: ca["fingerprint"][:16]),
    Column("EXPIRES", lambda ca: ca["expires_at"]),
    Column("SIGNS", lambda ca: ca["signs"]),
)
NODE_COLUMNS = (
    Column("NODE", lambda node: node["node"]),
    Column("SIGNER", lambda node: node["signer"]),
    Column("TRUSTS ALL", lambda node: node["trusts_new"]),
    Column("RENEWED", lambda node: node["renewed"]),
)


@app.command("status")
def status(output: OutputOption = Output.TABLE) -> None:
    """Show the CAs, how far a change of them is, and whom it waits for."""
    _show(AgentClient(Paths.from_environment()).get("ca"), output)


@app.command("rotate")
def rotate(output: OutputOption = Output.TABLE) -> None:
    """Replace both CAs by new ones, on a signer. It goes on by itself; nothing is cut off.

    Every node and every cluster of the mesh learns to trust the new CAs before they sign, and
    the old ones end when no certificate of theirs is left.
    """
    _show(AgentClient(Paths.from_environment()).post("ca", "rotate", body={}), output)


def _show(answer: Row, output: Output) -> None:
    if not output.for_people:
        console.show_data(answer, output)
        return
    typer.echo(f"phase {answer['phase']}, epoch {answer['epoch']}")
    console.show(answer["authorities"], CA_COLUMNS, output)
    typer.echo()
    console.show(answer["nodes"], NODE_COLUMNS, output)
    for reason in answer["waiting_for"]:
        typer.echo(f"waiting for {reason}")
