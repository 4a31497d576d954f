"""The command `meshnet`, its parts put together.

Every command pays for the imports of this module, so the modules below import what is
heavy (cryptography, gRPC, netlink, YAML) inside the commands that need it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from meshnet import __version__
from meshnet.cli import (
    bundle,
    cluster,
    doctor,
    drops,
    endpoint,
    identity,
    ipam,
    lab,
    manifest,
    maps,
    mesh,
    node,
    peering,
    policy,
    run,
    service,
    settings,
    status,
    troubleshoot,
)
from meshnet.cli.agent import run_agent

app = typer.Typer(
    name="meshnet",
    help="Join clusters of Linux hosts into one flat, policed, load-balanced network.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

status.register(app)
app.add_typer(cluster.app, name="cluster")
peering.register(mesh.app)
troubleshoot.register(mesh.app)
app.add_typer(mesh.app, name="mesh")
app.add_typer(node.app, name="node")
app.add_typer(settings.app, name="config")
app.add_typer(endpoint.app, name="endpoint")
app.add_typer(identity.app, name="identity")
app.add_typer(ipam.app, name="ipam")
app.add_typer(service.app, name="service")
app.add_typer(lab.app, name="lab")
run.register(app)
manifest.register(app)
maps.register(app)
drops.register(app)
policy.register(app)
doctor.register(app)
bundle.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"meshnet {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="MESHNET_DEBUG", help="Errors with a traceback.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    context.obj = debug


@app.command("version")
def show_version() -> None:
    """Print the version of this command."""
    _print_version(True)


@app.command("agent")
def agent(context: typer.Context) -> None:
    """Run this node's agent in the foreground.

    `cluster init` and `cluster join` start it as a service.
    """
    raise typer.Exit(run_agent(debug=bool(context.obj)))
