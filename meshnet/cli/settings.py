"""`meshnet config`: what the whole cluster agreed on."""

from __future__ import annotations

from typing import Annotated

import typer

from meshnet.cli import console
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output
from meshnet.config import Paths

app = typer.Typer(
    help="What the whole cluster agreed on.", rich_markup_mode=None, no_args_is_help=True
)

COLUMNS = (
    Column("KEY", lambda row: row["key"]),
    Column("VALUE", lambda row: row["value"]),
)


@app.command("get")
def get(
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="Without it: all.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a setting, or all of them."""
    client = AgentClient(Paths.from_environment())
    if key is None:
        rows = [{"key": name, "value": value} for name, value in client.get("config").items()]
        console.show(rows, COLUMNS, output)
        return
    found = client.get("config", key)
    if output.for_people:
        typer.echo(console.text(found["value"]))
    else:
        console.show_data(found, output)


@app.command("set")
def set_(
    key: Annotated[str, typer.Argument(metavar="KEY", help="As `config get` lists it.")],
    value: Annotated[
        str,
        typer.Argument(
            metavar="VALUE", help="A duration is 7d, 12h, 90m, 60s; a switch yes or no."
        ),
    ],
) -> None:
    """Change a setting for every node of the cluster; all follow at once."""
    answer = AgentClient(Paths.from_environment()).post("config", key, body={"value": value})
    console.progress(f"{answer['key']} is {console.text(answer['value'])}")
