"""`meshnet lab`: whole networks on this machine, from containerlab's files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshnet.cli import console, process
from meshnet.cli.arguments import OutputOption
from meshnet.cli.console import Column, Output, Tone
from meshnet.cli.run import CommandArgument, TtyOption, own_failure
from topology.model import Form, RuntimeKind

if TYPE_CHECKING:
    from topology.state import LabState

app = typer.Typer(
    help="Labs: whole networks on this machine, from containerlab files.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A *.clab.yml file.")]
LabArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the lab.")]

LABS = (
    Column("NAME", lambda lab: lab["name"]),
    Column("NODES", lambda lab: lab["nodes"]),
    Column("RUNTIME", lambda lab: lab["runtime"]),
    Column("FILE", lambda lab: lab["file"]),
)
NODES = (
    Column("NODE", lambda node: node["node"]),
    Column("KIND", lambda node: node["kind"]),
    Column("PID", lambda node: node["pid"]),
    Column("UP", lambda node: node["up"], tone=lambda node: None if node["up"] else Tone.BAD),
)


@app.command("up")
def up(
    file: FileArgument,
    runtime: Annotated[
        RuntimeKind, typer.Option("--runtime", help="Namespaces, or containerlab itself.")
    ] = RuntimeKind.NETNS,
) -> None:
    """Deploy a lab, whole or not at all; make one that is up what its file says now."""
    from topology import labs

    lab = labs.up(file, runtime, console.progress, console.warn)
    console.progress(
        f"lab {lab.name} is up: {', '.join(lab.nodes)}; try "
        f"`meshnet lab exec {next(iter(lab.nodes))} --lab {lab.name} -- ip address`"
    )


@app.command("down")
def down(
    lab: Annotated[str, typer.Argument(metavar="NAME|FILE", help="The lab, or its file.")],
) -> None:
    """Take a lab away, with everything in it; also what a crashed `up` left."""
    from topology import labs

    console.progress(f"lab {labs.down(lab)} is gone")


@app.command("list")
def list_labs(output: OutputOption = Output.TABLE) -> None:
    """List the labs on this machine."""
    from topology import state

    rows = [
        {
            "name": lab.name,
            "file": lab.file,
            "nodes": len(lab.nodes),
            "runtime": lab.runtime.value,
            "complete": lab.complete,
        }
        for lab in state.load_all()
    ]
    console.show(rows, LABS, output)


@app.command("status")
def status(lab: LabArgument, output: OutputOption = Output.TABLE) -> None:
    """Show the nodes of a lab. Exit 1 when one is not up."""
    from topology import labs, state

    found = state.load(lab)
    rows = [
        {"node": name, "kind": node.kind, "pid": node.pid, "up": labs.is_up(found, name)}
        for name, node in found.nodes.items()
    ]
    console.show(rows, NODES, output)
    if not all(row["up"] for row in rows):
        raise typer.Exit(1)


@app.command("exec")
def exec_(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node of a lab.")],
    command: CommandArgument,
    lab: Annotated[
        str | None, typer.Option("--lab", help="Its lab, when several have such a node.")
    ] = None,
    tty: TtyOption = False,
) -> None:
    """Run CMD in a lab node; `meshnet` is on its PATH, and the node's `env` is set."""
    from topology import containerlab, labs

    with own_failure():
        found, node = labs.find(node, lab)
        if found.runtime is RuntimeKind.CONTAINERLAB:
            process.replace(containerlab.exec_argv(found, node, command, tty=tty))
        code = _run_inside(found, node, command, tty=tty)
    raise typer.Exit(code)


def _run_inside(lab: LabState, node: str, command: list[str], *, tty: bool) -> int:
    """Run it in a namespace host, with our streams or a terminal of its own."""
    from topology.netns import runtime

    sys.stdout.flush()
    if not tty:
        with runtime.entrance(lab, node) as enter:
            child = process.hold(command, enter)
        child.release()
        return child.supervise()

    from meshnet.cli.terminal import Terminal

    terminal = Terminal(*runtime.open_terminal(lab, node))
    terminal.resize()
    with runtime.entrance(lab, node) as enter:

        def enter_with_terminal() -> None:
            terminal.adopt()
            enter()

        child = process.hold(command, enter_with_terminal)
    with terminal.joined():
        child.release()
        return child.supervise(on_resize=terminal.resize)


@app.command("graph")
def draw(
    file: FileArgument,
    form: Annotated[Form, typer.Option("--output", "-o", help="Form of the picture.")] = Form.SVG,
) -> None:
    """Draw a lab; of one that is up also how packets travel, and what is broken."""
    from topology import clab, drawing, graph, live

    writers = {Form.SVG: drawing.svg, Form.DOT: graph.dot, Form.MERMAID: graph.mermaid}
    layout = clab.read(file)
    sys.stdout.write(writers[form](layout, live.look(layout)))


@app.command("test")
def test(
    file: FileArgument,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the outcomes for CI.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab up.")] = False,
) -> None:
    """Bring a lab up, form its mesh, and check what its file expects. Exit 1 when one fails.

    A lab that is up already is tested as it is, and stays.
    """
    from topology import labs
    from topology.expect import outcome, runner

    outcomes = []
    for one in runner.test(file, console.progress, console.warn, keep=keep):
        outcomes.append(one)
        mark = console.painted("ok", Tone.GOOD) if one.ok else console.painted("FAILED", Tone.BAD)
        line = f"{mark}  {one.name}  ({one.seconds:.1f} s)"
        sys.stdout.write(line + (f": {one.problem}\n" if one.problem else "\n"))
        sys.stdout.flush()
    if junit is not None:
        junit.write_text(outcome.junit(labs.name_of(str(file)), outcomes))
    failed = [one for one in outcomes if not one.ok]
    console.progress(f"{len(outcomes) - len(failed)} of {len(outcomes)} are as expected")
    if failed:
        raise typer.Exit(1)


@app.command("fault", context_settings={"ignore_unknown_options": True})  # for `clock a -30`
def fault(
    lab: LabArgument,
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="cut, loss, rate, mtu, kill, freeze, clock or heal."),
    ],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[NODE ...] [AMOUNT]", help="As KIND wants.")
    ] = None,
    one_way: Annotated[
        bool, typer.Option("--one-way", help="Only from the first node to the second.")
    ] = False,
) -> None:
    """Break something on purpose.

    cut A B | loss A B 20% | rate A B 10mbit | mtu A B 1400 | kill NODE | freeze NODE
    | clock NODE -30 | heal
    """
    from topology import state
    from topology.faults import fault as faults

    faults.apply(state.load(lab), [kind, *(words or ())], one_way=one_way)
