"""`meshnet mesh troubleshoot`: at which step a remote cannot be read, and what to do."""

from __future__ import annotations

from typing import Annotated

import typer

from meshnet.cli import console
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import LONG_S, AgentClient
from meshnet.cli.console import Column, Output, Row, Tone
from meshnet.config import Paths
from meshnet.model.names import cluster_name


def register(mesh: typer.Typer) -> None:
    mesh.command("troubleshoot")(troubleshoot)


def troubleshoot(
    cluster: Annotated[
        str | None, typer.Argument(metavar="[CLUSTER]", help="One remote; else all.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Climb the ladder: DNS, TCP, TLS, certificates, etcd protocol, identity, clock, lag.

    A rung is tried when those below it hold. Exits 1 when one does not.
    """
    query = {} if cluster is None else {"cluster": cluster_name(cluster)}
    client = AgentClient(Paths.from_environment())
    rungs: list[Row] = client.get("mesh", "troubleshoot", timeout_s=LONG_S, **query)
    if rungs or not output.for_people:
        console.show(rungs, COLUMNS, output)
    else:
        console.progress("no other cluster is in our mesh")
    if any(rung["ok"] is False for rung in rungs):
        raise typer.Exit(1)


def _answer(rung: Row) -> str:
    return {True: "ok", False: "FAILED", None: "not tried"}[rung["ok"]]


def _tone(rung: Row) -> Tone:
    return {True: Tone.GOOD, False: Tone.BAD, None: Tone.DIM}[rung["ok"]]


COLUMNS = (
    Column("CLUSTER", lambda rung: rung["cluster"]),
    Column("RUNG", lambda rung: rung["rung"]),
    Column("ANSWER", _answer, tone=_tone),
    Column("TRIED", lambda rung: rung["tried"], wide=True),
    Column("EVIDENCE", lambda rung: rung["evidence"]),
    Column("CAUSE", lambda rung: rung["cause"], wide=True),
    Column("FIX", lambda rung: rung["fix"]),
)
