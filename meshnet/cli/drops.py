"""`meshnet drops`: what the dataplane refused, in numbers and packet by packet."""

from __future__ import annotations

from typing import Annotated

import typer

from meshnet.cli import console
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output, Row
from meshnet.config import Paths

WITH_PORTS = {"tcp", "udp", "sctp"}


def register(root: typer.Typer) -> None:
    root.command("drops")(drops)


COUNT_COLUMNS = (
    Column("REASON", lambda row: row["reason"]),
    Column("DIRECTION", lambda row: row["direction"]),
    Column("PACKETS", lambda row: row["packets"]),
    Column("BYTES", lambda row: row["bytes"]),
    Column("MEANS", lambda row: row.get("text")),
)


def _end(row: Row, end: str) -> str:
    """An address, and the port where the protocol has one."""
    address: str = row[end]
    if row["protocol"] not in WITH_PORTS:
        return address
    return (
        f"[{address}]:{row[f'{end}_port']}" if ":" in address else f"{address}:{row[f'{end}_port']}"
    )


EVENT_COLUMNS = (
    Column("TIME", lambda row: row["time"]),
    Column("REASON", lambda row: row["reason"]),
    Column("DIRECTION", lambda row: row["direction"]),
    Column("SOURCE", lambda row: _end(row, "source")),
    Column("IDENTITY", lambda row: row["source_identity"]),
    Column("DESTINATION", lambda row: _end(row, "destination")),
    Column("IDENTITY", lambda row: row["destination_identity"]),
    Column("PROTOCOL", lambda row: row["protocol"]),
    Column("BYTES", lambda row: row["length"]),
    Column("AT", lambda row: f"{row['file']}:{row['line']}"),
    Column("RULE", lambda row: row["rule"]),
    Column("VERDICT", lambda row: row["verdict"], wide=True),
    Column("INTERFACE", lambda row: row["ifindex"], wide=True),
)


def drops(
    last: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Instead, print the newest N dropped packets, oldest first."
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print how many packets were dropped, by reason and direction.

    Every drop is counted. Of single packets the agent keeps the newest 4096; of one reason the
    dataplane tells at most 100 a second and CPU.
    """
    agent = AgentClient(Paths.from_environment())
    if last is not None:
        console.show(agent.get("drops", "events", last=str(last)), EVENT_COLUMNS, output)
        return
    counts = agent.get("drops")
    by_packets = sorted(counts, key=lambda row: (-row["packets"], row["reason"], row["direction"]))
    console.show(by_packets, COUNT_COLUMNS, output)
