"""The entry point `meshnet`: runs one command line and turns every outcome into an exit code.

Exit codes: 0 ok, 1 failed or unhealthy, 2 usage, 4 not found, 5 control plane
unreachable, 6 kernel or permission lacks something, 124 timeout, 130 interrupted.
An error is one line on stderr; `--debug` adds the traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from meshnet.errors import MeshnetError

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130
"""128 + SIGINT."""
BROKEN_PIPE = 141
"""128 + SIGPIPE: who read our output went away, as with `| head`."""


def main() -> None:
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run one command line; every outcome is an exit code."""
    debug = bool(os.environ.get("MESHNET_DEBUG")) or "--debug" in arguments[:1]
    try:
        if arguments in (["agent"], ["--debug", "agent"]):
            from meshnet.cli.agent import run_agent  # in memory for months: without typer

            return run_agent(debug=debug)
        return _parse_and_run(arguments)
    except (MeshnetError, ExceptionGroup) as error:
        return _failed(error, debug=debug)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # the interpreter flushes stdout once more on its way out
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _parse_and_run(arguments: Sequence[str]) -> int:
    import typer

    from meshnet.cli.app import app

    command = typer.main.get_command(app)
    try:
        code = command.main(
            args=list(arguments) or ["--help"], prog_name="meshnet", standalone_mode=False
        )
        sys.stdout.flush()
    except typer.TyperException as error:
        _print_usage(error)
        return error.exit_code
    except SystemExit as ending:
        if isinstance(ending.__context__, BrokenPipeError):  # typer's own answer to it: exit 1
            raise ending.__context__ from None
        raise
    return code if isinstance(code, int) else 0


def _print_usage(error: typer.TyperException) -> None:
    """The parser's complaint in one line, and where help is; a group alone is its help."""
    context: typer.Context | None = getattr(error, "ctx", None)
    message = error.format_message()
    if context is not None and message == context.get_help():
        print(message, file=sys.stderr)
        return
    where = context.command_path if context else "meshnet"
    _print_error(f"{' '.join(message.split()).rstrip('.')}: see `{where} --help`")


def _failed(error: MeshnetError | ExceptionGroup[Exception], *, debug: bool) -> int:
    """One line for each thing that went wrong; the exit code of the first."""
    if debug:
        import traceback

        traceback.print_exception(error)
    leaves = list(_leaves(error))
    for leaf in leaves:
        _print_error(" ".join(str(leaf).split()))
    return leaves[0].exit_code


def _leaves(error: Exception) -> Iterator[MeshnetError]:
    """The refusals in a group. What is none of ours is a bug, and goes on as one."""
    if isinstance(error, MeshnetError):
        yield error
    elif isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        raise error


def _print_error(line: str) -> None:
    from meshnet.cli import console

    console.fail(line)


if __name__ == "__main__":
    main()
