"""`meshnet map`: the dataplane's maps, as they are in the kernel now."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from meshnet.cli import console
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output, Row
from meshnet.config import Paths

app = typer.Typer(help="The dataplane's maps.", rich_markup_mode=None, no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="map")


def _fill(row: Row) -> str | None:
    return f"{100 * row['entries'] / row['max_entries']:.1f} %" if row["max_entries"] else None


MAP_COLUMNS = (
    Column("MAP", lambda row: row["name"]),
    Column("ENTRIES", lambda row: row["entries"]),
    Column("MAX ENTRIES", lambda row: row["max_entries"]),
    Column("FILL", _fill),
)


@app.command("list")
def list_maps(output: OutputOption = Output.TABLE) -> None:
    """List the maps and how full they are."""
    maps = AgentClient(Paths.from_environment()).get("maps")
    console.show(sorted(maps, key=lambda row: row["name"]), MAP_COLUMNS, output)


@app.command("dump")
def dump_map(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `meshnet map list` names it.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Print every row of a map, with named fields."""
    rows = AgentClient(Paths.from_environment()).get("maps", name)
    console.show(rows, _columns_of(rows), output)


def _columns_of(rows: list[dict[str, Any]]) -> list[Column]:
    """A column a field, in the order in which fields first occur."""
    fields = dict.fromkeys(field for row in rows for field in row)
    return [Column(field.upper().replace("_", " "), partial(_get, field)) for field in fields]


def _get(field: str, row: Row) -> object:
    return row.get(field)
