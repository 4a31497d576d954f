"""`meshnet doctor`: what this host lacks, and what its agent complains about."""

from __future__ import annotations

from typing import Any

import typer

from meshnet.cli import console, status
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output, Row, Tone
from meshnet.config import Paths
from meshnet.errors import CapabilityMissing, MeshnetError


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(output: OutputOption = Output.TABLE) -> None:
    """Look for what is wrong: the evidence, and how to mend it. Exits 1 when there is."""
    findings = [*_of_host(), *_of_agent(AgentClient(Paths.from_environment()))]
    if findings or not output.for_people:
        console.show(findings, COLUMNS, output)
    else:
        console.progress("nothing is wrong that could be seen from here")
    if any(finding["severity"] == "error" for finding in findings):
        raise typer.Exit(1)


def _of_host() -> list[dict[str, Any]]:
    """The first thing that the kernel or our permissions lack."""
    from meshnet.host import capability

    try:
        capability.require_all()
    except CapabilityMissing as lack:
        evidence, _, fix = str(lack).partition(": ")
        return [{"id": "host", "severity": "error", "evidence": evidence, "fix": fix}]
    return []


def _of_agent(client: AgentClient) -> list[dict[str, Any]]:
    """What the agent says of itself, or that there is none."""
    try:
        answer = status.fetch(client)
    except MeshnetError as error:
        evidence, _, fix = str(error).partition(": ")
        return [{"id": "agent", "severity": "error", "evidence": evidence, "fix": fix}]
    return [
        {
            "id": problem["id"],
            "severity": problem["severity"],
            "evidence": problem["message"],
            "fix": problem["fix"],
        }
        for problem in status.sorted_problems(answer)
    ]


def severity_tone(finding: Row) -> Tone | None:
    return {"error": Tone.BAD, "warning": Tone.WARN}.get(finding["severity"])


COLUMNS = (
    Column("ID", lambda finding: finding["id"]),
    Column("SEVERITY", lambda finding: finding["severity"], tone=severity_tone),
    Column("EVIDENCE", lambda finding: finding["evidence"]),
    Column("FIX", lambda finding: finding["fix"]),
)
