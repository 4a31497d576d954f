"""`meshnet ipam`: who holds which addresses, and whether that fits together."""

from __future__ import annotations

from typing import Annotated

import typer

from meshnet.cli import console
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output
from meshnet.cli.doctor import severity_tone
from meshnet.config import Paths

app = typer.Typer(
    help="Who holds which addresses of this cluster.", rich_markup_mode=None, no_args_is_help=True
)

COLUMNS = (
    Column("ID", lambda finding: finding["id"]),
    Column("SEVERITY", lambda finding: finding["severity"], tone=severity_tone),
    Column("SUBJECT", lambda finding: finding["subject"]),
    Column("EVIDENCE", lambda finding: finding["evidence"]),
    Column("FIX", lambda finding: finding["fix"]),
)


@app.callback()
def ipam() -> None:
    """A group, though it has one command."""


@app.command()
def check(
    fix: Annotated[
        bool, typer.Option("--fix", help="Delete the keys that nobody would ever delete.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Compare PodCIDRs with their nodes, and endpoints' addresses with PodCIDRs.

    Exits 1 when something is wrong. A node that is down is a warning.
    """
    agent = AgentClient(Paths.from_environment())
    findings = agent.post("ipam", "fix", body={}) if fix else agent.get("ipam")
    if findings or not output.for_people:
        console.show(findings, COLUMNS, output)
    else:
        console.progress("every block has its node, and every address its block")
    if any(finding["severity"] == "error" for finding in findings):
        raise typer.Exit(1)
