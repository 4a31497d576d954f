"""docs/reference/cli.md, from the commands themselves: `python -m meshnet.cli.reference`.

A test compares the file with what this prints, so the reference cannot fall behind.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer

HEAD = """\
# The command line

Made by `python -m meshnet.cli.reference`; edit the commands, not this file.

stdout is data, stderr is progress and warnings. `-o json` and `-o yaml` print what the agent
answers, unchanged. A flag wins over its `MESHNET_*` variable, that over
`/etc/meshnet/meshnet.toml`, that over the default. An error is one line; `meshnet --debug ...`
adds the traceback.

| exit code | meaning |
|---|---|
| 0 | ok |
| 1 | failed, or unhealthy |
| 2 | wrong usage, or bad input |
| 4 | not found |
| 5 | the agent, etcd or another cluster cannot be reached |
| 6 | the kernel or a permission lacks something |
| 124 | it did not happen in time |
| 125, 126, 127 | `run`, `exec`: our own failure, CMD cannot be executed, there is no CMD |

`run` and `exec` otherwise exit with the status of CMD, 128 + N when signal N ended it.
"""


def reference() -> str:
    from meshnet.cli.app import app

    command = typer.main.get_command(app)
    return "\n".join([HEAD, *_sections(command, "meshnet", parent=None)])


def _sections(command: Any, path: str, *, parent: typer.Context | None) -> Iterator[str]:
    """Depth first, in the order of `--help`."""
    with command.make_context(path, [], parent=parent, resilient_parsing=True) as context:
        children = getattr(command, "commands", {})
        if parent is not None:
            yield f"{'##' if children else '###'} {path}\n"
            yield inspect.cleandoc(command.help or "") + "\n"
        if not children or command.invoke_without_command:
            yield f"```\n{' '.join([path, *command.collect_usage_pieces(context)])}\n```\n"
            yield from _parameters(command, context)
        for name, child in children.items():
            yield from _sections(child, f"{path} {name}", parent=context)


def _parameters(command: Any, context: typer.Context) -> Iterator[str]:
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    rows = [
        f"| `{_cell(name)}` | {_cell(' '.join(text.split()))} |"
        for name, text in filter(None, records)
        if "--help" not in name
    ]
    if rows:
        yield "\n".join(["| | |", "|---|---|", *rows]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
