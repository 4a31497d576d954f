"""`meshnet policy` and `meshnet why`: who may talk to whom, and by which rule."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshnet.cli import console, manifest_files
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output
from meshnet.config import Paths

app = typer.Typer(
    help="Who may talk to whom.", rich_markup_mode=None, no_args_is_help=True
)  # fmt: skip

LIST_COLUMNS = (
    Column("KIND", lambda row: row["kind"]),
    Column("NAMESPACE", lambda row: row["namespace"]),
    Column("NAME", lambda row: row["name"]),
    Column("ORIGIN", lambda row: row["origin"]),
    Column("DEFAULT DENY", lambda row: row["default_deny"]),
    Column("RULES", lambda row: row["rules"]),
    Column("AUDIT", lambda row: row["audit"]),
    Column("ENDPOINTS", lambda row: row["endpoints"]),
)
PLAN_COLUMNS = (
    Column("IDENTITY", lambda row: row["identity"]),
    Column("DIRECTION", lambda row: row["direction"]),
    Column("REMOTE", lambda row: row["remote"]),
    Column("BEFORE", lambda row: row["before"]),
    Column("AFTER", lambda row: row["after"]),
    Column("LABELS", lambda row: row["labels"], wide=True),
    Column("REMOTE LABELS", lambda row: row["remote_labels"], wide=True),
)
WHY_COLUMNS = (
    Column("VERDICT", lambda row: row["verdict"]),
    Column("SOURCE", lambda row: row["source"]),
    Column("DESTINATION", lambda row: row["destination"]),
    Column("PORT", lambda row: row["port"]),
    Column("DIRECTION", lambda row: row["direction"]),
    Column("BACKENDS", lambda row: [_backend(each) for each in row.get("backends", ())]),
    Column("RULES", lambda row: [_rule(rule) for rule in row["rules"]]),
    Column("MISSING", lambda row: row["missing"]),
    Column("PATH", lambda row: [f"{p['hook']} on {p['node']}: {p['decision']}"
                                for p in row["path"]]),
    Column("NOT ASKED", lambda row: [_unasked(end) for end in row["not_asked"]]),
)  # fmt: skip
EXIT_CODES = {"allowed": 0, "denied": 1, "unknown": 4}


def _rule(rule: dict[str, Any]) -> str:
    return f"{'deny' if rule['deny'] else 'allow'} by {rule['policy']} {rule['place']}"


def _unasked(end: dict[str, Any]) -> str:
    return f"{end['direction']} of {end['endpoint']}: ask in cluster {end['cluster']}"


def _backend(answer: dict[str, Any]) -> str:
    to = f"{answer['destination']} port {answer['port']}" if answer["port"] else answer["source"]
    return f"{to}, {answer['state']}: {answer['verdict']}"


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="policy")
    root.command("why")(why)


@app.command("list")
def list_policies(output: OutputOption = Output.TABLE) -> None:
    """List the policies of this cluster, and whom of this node each is about."""
    console.show(AgentClient(Paths.from_environment()).get("policies"), LIST_COLUMNS, output)


@app.command("plan")
def plan(
    filename: Annotated[
        list[str], typer.Option("--filename", "-f", metavar="FILE|DIR|-", help="Manifests.")
    ],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show whom manifests would treat otherwise. Exit code 1 when there is somebody."""
    manifests = manifest_files.load(filename).manifests
    body = {"documents": manifest_files.as_documents(manifests)}
    rows = AgentClient(Paths.from_environment()).post("policies", "plan", body=body)
    console.show(rows, PLAN_COLUMNS, output)
    if rows:
        raise typer.Exit(1)


def why(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC", help="[cluster/][namespace/]endpoint, address, entity, service."
        ),
    ],
    destination: Annotated[str, typer.Argument(metavar="DST", help="The same.")],
    port: Annotated[
        str | None,
        typer.Option(
            "--port",
            metavar="N/PROTOCOL",
            help="Such as 80/tcp, 8/icmp. By default a service's only port, else 80/tcp.",
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whether SRC may reach DST, and by which rules. Exit code 0 allowed, 1 denied, 4
    unknown. A service is answered for by every backend that takes clients. An end in another
    cluster is not asked, and the answer says so."""
    query: dict[str, Any] = {"source": source, "destination": destination}
    if port is not None:
        query["port"] = port
    answer = AgentClient(Paths.from_environment()).get("why", **query)
    console.show_one(answer, WHY_COLUMNS, output)
    if code := EXIT_CODES[answer["verdict"]]:
        raise typer.Exit(code)
