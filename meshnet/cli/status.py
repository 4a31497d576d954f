"""`meshnet status`: one screen on this node, the worst first."""

from __future__ import annotations

from typing import Any

import typer

from meshnet.cli import console, mesh
from meshnet.cli.arguments import OutputOption, TimeoutOption, WaitOption, duration_s
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output, Row, Tone
from meshnet.cli.waiting import wait_for
from meshnet.config import Paths

PEERS_SHOWN = 10
"""A screen, not a listing: `-o wide` shows all."""


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(
    output: OutputOption = Output.TABLE,
    wait: WaitOption = False,
    timeout: TimeoutOption = "60s",
) -> None:
    """Show this node: what works, what does not, and how to mend it.

    Exits 0 when the node is ready, 1 when it is not.
    """
    client = AgentClient(Paths.from_environment())
    limit_s = duration_s(timeout)
    answer = (
        wait_for(lambda: fetch(client), what_is_missing, timeout_s=limit_s)
        if wait
        else (fetch(client))
    )
    if output.for_people:
        print_screen(answer, everything=output is Output.WIDE)
    else:
        console.show_data(answer, output)
    if not answer["ready"]:
        raise typer.Exit(1)


def fetch(client: AgentClient) -> dict[str, Any]:
    answer: dict[str, Any] = client.get("status")
    return answer


def what_is_missing(answer: Row) -> str:
    """Why the node is not ready, in words; empty when it is."""
    if answer["ready"]:
        return ""
    worst = sorted_problems(answer)
    return str(worst[0]["message"]) if worst else "the agent is still starting"


SEVERITIES = ("error", "warning", "info")


def sorted_problems(answer: Row) -> list[Row]:
    def rank(problem: Row) -> int:
        severity = problem["severity"]
        return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)

    return sorted(answer["problems"], key=rank)


def print_problems(problems: list[Row]) -> None:
    tones = {"error": Tone.BAD, "warning": Tone.WARN}
    for problem in problems:
        severity = str(problem["severity"])
        head = console.painted(severity.upper(), tones.get(severity))
        typer.echo(f"{head} {problem['id']}: {problem['message']}")
        if problem.get("fix"):
            typer.echo(f"  fix: {problem['fix']}")


def print_screen(answer: Row, *, everything: bool) -> None:
    node, cluster, etcd = answer["node"], answer["cluster"], answer["etcd"]
    word, tone = ("ready", Tone.GOOD) if answer["ready"] else ("not ready", Tone.BAD)
    typer.echo(f"{node['name']} in {cluster['name']}: {console.painted(word, tone)}")
    print_problems(sorted_problems(answer))
    connected = "connected" if etcd["connected"] else console.painted("not connected", Tone.BAD)
    console.print_fields(
        [
            ("Cluster", f"{cluster['name']} (id {cluster['id']})"),
            ("Addresses", ", ".join(node["addresses"]) or "-"),
            ("PodCIDRs", ", ".join(node["pod_cidrs"]) or "-"),
            ("etcd", f"{connected}, revision {etcd['revision']}"),
            ("Dataplane", _dataplane(answer["dataplane"])),
            ("Certificates", _certificates(answer.get("certificates", []))),
            ("Endpoints", f"{answer['endpoints']} here, {answer['identities']} identities known"),
            ("Version", str(answer["version"])),
        ]
    )
    peers = sorted(
        answer["peers"], key=lambda peer: (peer["reachable"], peer["cluster"], peer["node"])
    )
    if peers:
        typer.echo()
        console.show(peers if everything else peers[:PEERS_SHOWN], PEER_COLUMNS, Output.TABLE)
        if not everything and len(peers) > PEERS_SHOWN:
            typer.echo(f"and {len(peers) - PEERS_SHOWN} more: meshnet status -o wide")
    if answer["clusters"]:
        typer.echo()
        form = Output.WIDE if everything else Output.TABLE
        console.show(mesh.worst_first(answer["clusters"]), mesh.COLUMNS, form)


def _certificates(certificates: list[Row]) -> str:
    """The first that runs out says how long the node is good for."""
    if not certificates:
        return "-"
    soonest = certificates[0]
    words = f"{soonest['days_left']:.1f} days left ({soonest['certificate']})"
    return console.painted(words, Tone.BAD) if soonest["days_left"] <= 0 else words


def _dataplane(dataplane: Row) -> str:
    if not dataplane["loaded"]:
        return console.painted("not loaded", Tone.BAD)
    maps = dataplane["maps"]
    line = f"{dataplane['programs']} programs, {len(maps)} maps"
    filled = [
        (100 * each["entries"] / each["max_entries"], each["name"])
        for each in maps
        if each["max_entries"]
    ]
    if not filled:
        return line
    percent, name = max(filled)
    return f"{line}, fullest {name} {percent:.0f} %"


def _reachable_tone(peer: Row) -> Tone:
    return Tone.GOOD if peer["reachable"] else Tone.BAD


def _rtt(peer: Row) -> str | None:
    return None if peer["rtt_ms"] is None else f"{peer['rtt_ms']:.2f} ms"


PEER_COLUMNS = (
    Column("PEER", lambda peer: peer["node"]),
    Column("CLUSTER", lambda peer: peer["cluster"]),
    Column("MODE", lambda peer: peer["mode"]),
    Column("PATH MTU", lambda peer: peer["path_mtu_bytes"]),
    Column("RTT", _rtt),
    Column("REACHABLE", lambda peer: peer["reachable"], tone=_reachable_tone),
)
