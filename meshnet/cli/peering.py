"""`meshnet mesh add` and `mesh access`: a Cilium cluster reads us, and we read it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import attrs
import typer

from meshnet.cli import console
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Output
from meshnet.cli.plan import show_plan
from meshnet.config import Paths
from meshnet.errors import ConfigError, UsageError
from meshnet.model.addressing import parse_prefix
from meshnet.model.names import cluster_name


def register(mesh: typer.Typer) -> None:
    mesh.command("add")(add)
    mesh.command("access")(access)


ClusterArgument = Annotated[str, typer.Argument(metavar="CLUSTER", help="The Cilium cluster.")]


def add(
    cluster: ClusterArgument,
    config: Annotated[
        Path,
        typer.Option(
            "--etcd-config",
            metavar="FILE",
            help="etcd client YAML as Cilium writes it; its PEM files may lie beside it.",
        ),
    ],
    pod_cidrs: Annotated[
        list[str],
        typer.Option("--pod-cidr", metavar="CIDR", help="All it may have addresses from."),
    ],
    output: OutputOption = Output.TABLE,
) -> None:
    """Read a Cilium cluster through its clustermesh-apiserver. Again: with new credentials."""
    from meshnet.cli import etcd_config

    cluster_name(cluster)
    prefixes = [str(parse_prefix(text)) for text in pod_cidrs]
    text = _read(config)
    named = etcd_config.named_files(text, config.parent)
    read = etcd_config.read(text, {name: _read(path) for name, path in named.items()})
    body = {"cluster": cluster, "config": attrs.asdict(read), "pod_cidrs": prefixes}
    answer = AgentClient(Paths.from_environment()).post("mesh", "peers", body=body)
    show_plan(answer, output)
    if not output.for_people:
        return
    typer.echo(f"cluster {answer['cluster']} (id {answer['id']}) added")
    console.progress(f"for it to read us: meshnet mesh access {cluster}")


def access(
    cluster: ClusterArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write the files; else ./CLUSTER."),
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="What was written last works until it expires.")
    ] = False,
) -> None:
    """Write what CLUSTER needs to read us: etcd YAML in Cilium's form, and certificates.

    What was written before stops working, but with --renew.
    """
    cluster_name(cluster)
    directory = out or Path(cluster)
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"--out {directory} is no directory")
    from meshnet.cli import etcd_config

    body = {"cluster": cluster, "renew": renew}
    given = AgentClient(Paths.from_environment()).post("mesh", "access", body=body)
    tls = given["access"]
    files = etcd_config.write(
        given["cluster"], given["endpoints"], ca=tls["ca"], cert=tls["cert"], key=tls["key"]
    )
    for name, text in files.items():
        typer.echo(_write(directory, name, text))
    console.progress(
        f"put them into the secrets cilium-clustermesh and cilium-kvstoremesh of cluster {cluster}"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _write(directory: Path, name: str, text: str) -> Path:
    """A file that is its owner's alone from the first moment: one of them is a key."""
    path = directory / name
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return path
