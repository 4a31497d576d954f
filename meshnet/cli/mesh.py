"""`meshnet mesh`: the clusters that know each other."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshnet.cli import console
from meshnet.cli.arguments import OutputOption, TimeoutOption, WaitOption, duration_s, secret
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output, Row, Tone
from meshnet.cli.plan import demand_clean, show_plan
from meshnet.cli.waiting import wait_for
from meshnet.config import Paths
from meshnet.errors import UsageError
from meshnet.model.names import cluster_name

app = typer.Typer(
    help="The clusters that know each other.", rich_markup_mode=None, no_args_is_help=True
)

TokenArgument = Annotated[
    str,
    typer.Argument(
        metavar="TOKEN", envvar="MESHNET_TOKEN", help="The token, or file:PATH, or - for stdin."
    ),
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Only check, and say what would happen.")]
TtlOption = Annotated[
    str, typer.Option("--ttl", metavar="DURATION", help="How long the token is good for.")
]


@app.command("status")
def status(
    output: OutputOption = Output.TABLE,
    wait: WaitOption = False,
    timeout: TimeoutOption = "60s",
) -> None:
    """Show every other cluster of the mesh. Exits 0 only if all are ready."""
    client = AgentClient(Paths.from_environment())
    limit_s = duration_s(timeout)

    def fetch() -> list[dict[str, Any]]:
        remotes: list[dict[str, Any]] = client.get("mesh")
        return remotes

    remotes = wait_for(fetch, what_is_missing, timeout_s=limit_s) if wait else fetch()
    console.show(worst_first(remotes), COLUMNS, output)
    if what_is_missing(remotes):
        raise typer.Exit(1)


def what_is_missing(remotes: list[dict[str, Any]]) -> str:
    """Which remotes are not ready, in words; empty when all are."""
    waiting = [remote for remote in remotes if not remote["ready"]]
    return "; ".join(
        f"cluster {remote['name']} is not ready ({remote['error'] or 'still copying its state'})"
        for remote in waiting
    )


def worst_first(remotes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(remotes, key=lambda remote: (remote["ready"], remote["name"]))


@app.command("invite")
def invite(
    ttl: TtlOption = "1h",
    for_cluster: Annotated[
        str | None,
        typer.Option("--for", metavar="CLUSTER", help="Only this cluster may use it."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print a token with which another cluster joins this one in a mesh."""
    if for_cluster is not None:
        cluster_name(for_cluster)
    body = {"kind": "mesh", "ttl_s": token_ttl_s(ttl), "signer": False, "for_cluster": for_cluster}
    print_token(AgentClient(Paths.from_environment()).post("tokens", body=body), output)


SHORTEST_TTL_S, LONGEST_TTL_S = 10, 7 * 86400


def token_ttl_s(text: str) -> int:
    """Whole seconds. Longer than a week is no invitation but a standing credential."""
    ttl_s = duration_s(text)
    if not SHORTEST_TTL_S <= ttl_s <= LONGEST_TTL_S:
        raise UsageError(f"--ttl {text} is out of range: {SHORTEST_TTL_S}s to 7d")
    return round(ttl_s)


def print_token(token: Row, output: Output) -> None:
    """The token alone on stdout, so that `$(meshnet ...)` is the token."""
    if output.for_people:
        typer.echo(token["token"])
        console.progress(f"good once, until {token['expires_at']}; id {token['id']}")
    else:
        console.show_data(token, output)


@app.command("join")
def join(
    token: TokenArgument, plan: PlanOption = False, output: OutputOption = Output.TABLE
) -> None:
    """Join the cluster that gave TOKEN in a mesh: both know each other afterwards."""
    client = AgentClient(Paths.from_environment())
    answer = client.post("mesh", "join", body={"token": secret(token), "plan": plan})
    show_plan(answer, output)
    demand_clean(answer)
    if output.for_people:
        ending = "joined" if answer["joined"] else "would be joined; nothing was changed"
        typer.echo(f"cluster {answer['cluster']} (id {answer['id']}) {ending}")


@app.command("leave")
def leave(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="The cluster to part from.")],
) -> None:
    """Forget CLUSTER, and let it read us no more. It forgets us by the same command there."""
    AgentClient(Paths.from_environment()).post("mesh", "leave", body={"cluster": cluster})
    console.progress(f"cluster {cluster} is no longer in our mesh")


def _ready_tone(remote: Row) -> Tone:
    return Tone.GOOD if remote["ready"] else Tone.BAD


COLUMNS = (
    Column("CLUSTER", lambda remote: remote["name"]),
    Column("ID", lambda remote: remote["id"]),
    Column("READY", lambda remote: remote["ready"], tone=_ready_tone),
    Column("CONNECTED", lambda remote: remote["connected"]),
    Column("NODES", lambda remote: remote["nodes"]),
    Column("IDENTITIES", lambda remote: remote["identities"]),
    Column("ENDPOINTS", lambda remote: remote["endpoints"]),
    Column("SERVICES", lambda remote: remote["services"]),
    Column("LAST EVENT", lambda remote: remote["last_event_at"], wide=True),
    Column("RECONNECTS", lambda remote: remote["reconnects"], wide=True),
    Column("CERTIFICATE EXPIRES", lambda remote: remote["certificate_expires_at"], wide=True),
    Column("ERROR", lambda remote: remote["error"]),
)
