"""A plan on the screen: a line a check, what failed in the end as the exit code."""

from __future__ import annotations

import typer

from meshnet.cli import console
from meshnet.cli.console import Column, Output, Row, Tone


def show_plan(answer: Row, output: Output) -> None:
    """`answer` has the `checks`; other forms than the table show all of it."""
    if output.for_people:
        console.show(answer["checks"], CHECK_COLUMNS, output)
    else:
        console.show_data(answer, output)


def demand_clean(answer: Row) -> None:
    """Ends the command with 1 when a check failed, and says how many did."""
    failed = [check["check"] for check in answer["checks"] if not check["ok"]]
    if failed:
        console.fail(f"{len(failed)} of {len(answer['checks'])} checks failed: {', '.join(failed)}")
        raise typer.Exit(1)


def _tone(check: Row) -> Tone:
    return Tone.GOOD if check["ok"] else Tone.BAD


CHECK_COLUMNS = (
    Column("CHECK", lambda check: check["check"]),
    Column("RESULT", lambda check: "ok" if check["ok"] else "failed", tone=_tone),
    Column("EVIDENCE", lambda check: check["evidence"]),
    Column("FIX", lambda check: check["fix"]),
)
