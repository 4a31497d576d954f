"""`meshnet cluster`: make a cluster, bring hosts into it, take them out.

These work on the host itself, since there is no agent to ask before or after.
"""

from __future__ import annotations

import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from meshnet.cli import authority, console, status
from meshnet.cli.arguments import OutputOption, secret
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output
from meshnet.cli.mesh import PlanOption, TokenArgument, TtlOption, print_token, token_ttl_s
from meshnet.cli.plan import demand_clean, show_plan
from meshnet.config import EtcdSettings, Paths
from meshnet.errors import AgentUnreachable, ConfigError, UsageError
from meshnet.model.addressing import Prefix, parse_prefix
from meshnet.model.cluster import (
    Cluster,
    Routing,
    TunnelProtocol,
    default_pod_cidrs,
    default_service_cidrs,
    derived_cluster_id,
)
from meshnet.model.names import LABEL_MAX, cluster_id, cluster_name, rfc1123_label

if TYPE_CHECKING:
    from meshnet.bootstrap.plan import Enlisting

app = typer.Typer(
    help="Make a cluster, join it, leave it.", rich_markup_mode=None, no_args_is_help=True
)
tokens = typer.Typer(help="Tokens with which hosts join this cluster.", rich_markup_mode=None)
app.add_typer(tokens, name="token")
app.add_typer(authority.app, name="ca")

T = TypeVar("T")

NodeOption = Annotated[
    str | None, typer.Option("--node", help="This node's name; by default the host's.")
]
UnderlayOption = Annotated[
    str | None,
    typer.Option(
        "--underlay",
        metavar="IFACE|CIDR",
        help="The interface between nodes; by default that of the default route.",
    ),
]
PodCidrsOption = Annotated[
    list[str] | None,
    typer.Option("--pod-cidr", metavar="CIDR", help="Endpoints' addresses; one a family."),
]
ServiceCidrsOption = Annotated[
    list[str] | None,
    typer.Option("--service-cidr", metavar="CIDR", help="Services' addresses."),
]
NonMasqueradeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--non-masquerade-cidr",
        metavar="CIDR",
        help="Where endpoints are seen by their own addresses: it has a route back.",
    ),
]
EtcdOption = Annotated[
    str | None, typer.Option(metavar="URL,...", help="An etcd that exists; else one is run.")
]
PemOption = Annotated[Path | None, typer.Option(help="PEM file, for --etcd.")]


@app.command("init")
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The cluster's name.")],
    id: Annotated[
        int | None, typer.Option("--id", help="1 to 255; by default made from NAME.")
    ] = None,
    pod_cidr: PodCidrsOption = None,
    service_cidr: ServiceCidrsOption = None,
    node_prefix_v4: Annotated[int, typer.Option(help="Length of a node's IPv4 PodCIDR.")] = 22,
    node_prefix_v6: Annotated[int, typer.Option(help="Length of a node's IPv6 PodCIDR.")] = 112,
    routing: Annotated[
        Routing, typer.Option(help="Between nodes: tunnel, native, or native where it works.")
    ] = Routing.TUNNEL,
    tunnel: Annotated[TunnelProtocol, typer.Option(help="Encapsulation.")] = TunnelProtocol.VXLAN,
    masquerade: Annotated[
        bool, typer.Option(help="Hide endpoints behind their node towards the world.")
    ] = True,
    non_masquerade_cidr: NonMasqueradeOption = None,
    underlay: UnderlayOption = None,
    node: NodeOption = None,
    etcd: EtcdOption = None,
    etcd_ca: PemOption = None,
    etcd_cert: PemOption = None,
    etcd_key: PemOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a new cluster, with this host as its first node. All or nothing."""
    number = derived_cluster_id(cluster_name(name)) if id is None else cluster_id(id)
    cluster = Cluster(
        name=name,
        id=number,
        pod_cidrs=tuple(map(parse_prefix, pod_cidr)) if pod_cidr else default_pod_cidrs(number),
        service_cidrs=(
            tuple(map(parse_prefix, service_cidr)) if service_cidr else default_service_cidrs()
        ),
        node_prefix_v4=node_prefix_v4,
        node_prefix_v6=node_prefix_v6,
        routing=routing,
        tunnel=tunnel,
        masquerade=masquerade,
        non_masquerade_cidrs=exempt(non_masquerade_cidr or [], masquerade=masquerade),
    )
    chosen = node_name(node)
    external = etcd_settings(etcd, etcd_ca, etcd_cert, etcd_key)
    from meshnet.bootstrap.init import Founding, found_cluster

    paths = Paths.from_environment()
    wanted = Founding(cluster=cluster, node=chosen, underlay=underlay, etcd=external)
    finish(found_cluster(wanted, paths, say=console.progress, missing=lambda: missing(paths)))
    _show_member(cluster, chosen, output)
    if output.for_people:
        console.progress("next: `meshnet cluster token` here, `meshnet cluster join TOKEN` there")


def exempt(cidrs: list[str], *, masquerade: bool) -> tuple[Prefix, ...]:
    """Destinations that see endpoints' own addresses. Raises UsageError, InvalidPrefix."""
    if cidrs and not masquerade:
        raise UsageError(
            "--non-masquerade-cidr means nothing with --no-masquerade: no destination is "
            "masqueraded then; leave one of them out"
        )
    return tuple(map(parse_prefix, cidrs))


def finish(work: Coroutine[object, object, T]) -> T:
    """Run long work to its end, what it logs on stderr."""
    import asyncio

    from meshnet import log  # 50 ms, for these commands alone

    log.setup()
    return asyncio.run(work)


def missing(paths: Paths) -> str:
    """What this node's agent still lacks, in words; empty when it is ready."""
    try:
        return status.what_is_missing(status.fetch(AgentClient(paths)))
    except AgentUnreachable as error:
        return str(error)


def node_name(given: str | None) -> str:
    """As given, or the host's own name as far as its first dot."""
    if given is not None:
        return rfc1123_label("node", given)
    host = socket.gethostname().partition(".")[0].lower()
    try:
        return rfc1123_label("node", host[:LABEL_MAX])
    except ConfigError as error:
        raise ConfigError(f"this host's name cannot be the node's: {error}; give --node") from error


def etcd_settings(
    urls: str | None, ca: Path | None, cert: Path | None, key: Path | None
) -> EtcdSettings | None:
    """The four options of an external etcd, all or none."""
    files = {"--etcd-ca": ca, "--etcd-cert": cert, "--etcd-key": key}
    absent = [option for option, path in files.items() if path is None]
    if urls is None:
        if len(absent) < len(files):
            raise UsageError("--etcd-ca, --etcd-cert and --etcd-key belong to --etcd URL,...")
        return None
    if absent:
        raise UsageError(f"--etcd is always TLS: {', '.join(absent)} must be given too")
    for option, path in files.items():
        if path is not None and not path.is_file():
            raise ConfigError(f"{option} {path} is no file")
    return EtcdSettings(
        endpoints=tuple(_endpoint(url) for url in urls.split(",")),
        ca=str(ca and ca.absolute()),
        cert=str(cert and cert.absolute()),
        key=str(key and key.absolute()),
    )


def _endpoint(url: str) -> str:
    """`https://10.0.0.1:2379` or `10.0.0.1:2379` -> `10.0.0.1:2379`."""
    endpoint = url.strip().removeprefix("https://").rstrip("/")
    host, _, port = endpoint.rpartition(":")
    if "/" in endpoint or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--etcd {url!r} is not https://HOST:PORT")
    return endpoint


def _show_member(cluster: Cluster, node: str, output: Output) -> None:
    row = {
        "cluster": cluster.name,
        "id": cluster.id,
        "node": node,
        "pod_cidrs": [str(prefix) for prefix in cluster.pod_cidrs],
        "service_cidrs": [str(prefix) for prefix in cluster.service_cidrs],
        "routing": str(cluster.routing),
        "tunnel": str(cluster.tunnel),
    }
    console.show_one(row, MEMBER_COLUMNS, output)


MEMBER_COLUMNS = (
    Column("CLUSTER", lambda row: f"{row['cluster']} (id {row['id']})"),
    Column("NODE", lambda row: row["node"]),
    Column("PODCIDRS", lambda row: row["pod_cidrs"]),
    Column("SERVICE CIDRS", lambda row: row["service_cidrs"]),
    Column("ROUTING", lambda row: f"{row['routing']}, {row['tunnel']}"),
)


@app.command("join")
def join(
    token: TokenArgument,
    node: NodeOption = None,
    underlay: UnderlayOption = None,
    plan: PlanOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Join this host to the cluster that gave TOKEN. All or nothing."""
    from meshnet.bootstrap.join import join_cluster
    from meshnet.bootstrap.plan import Enlisting
    from meshnet.pki.token import JoinToken

    wanted = Enlisting(
        token=JoinToken.decode(secret(token)), node=node_name(node), underlay=underlay
    )
    paths = Paths.from_environment()
    if plan:
        _show_join_plan(wanted, paths, output)
        return
    joined = join_cluster(wanted, paths, say=console.progress, missing=lambda: missing(paths))
    cluster, new = finish(joined)
    _show_member(cluster, wanted.node, output)
    if output.for_people:
        console.progress("joined" if new else "this host is that node already: nothing to do")


def _show_join_plan(wanted: Enlisting, paths: Paths, output: Output) -> None:
    import attrs

    from meshnet.bootstrap.join import plan_join

    planned = finish(plan_join(wanted, paths, say=console.progress))
    meeting = planned.meeting
    answer = {
        "cluster": wanted.token.cluster,
        "id": wanted.token.cluster_id,
        "node": wanted.node,
        "underlay": meeting and meeting.underlay.ifname,
        "underlay_reason": meeting and meeting.reason,
        "checks": [attrs.asdict(check) for check in planned.checks],
        "joined": False,
    }
    show_plan(answer, output)
    demand_clean(answer)
    if output.for_people:
        console.progress("this host would join; nothing was changed")


@app.command("leave")
def leave(
    force: Annotated[
        bool, typer.Option("--force", help="Without the agent or etcd, or though others need it.")
    ] = False,
) -> None:
    """Take this host out of its cluster: nothing of it is left in etcd or in the kernel."""
    from meshnet.bootstrap.leave import leave_cluster

    paths = Paths.from_environment()
    client = AgentClient(paths)

    def drain() -> None:
        client.post("leave", body={"force": force})

    finish(leave_cluster(paths, force=force, say=console.progress, drain=drain))
    console.progress("this host is in no cluster any more")


@tokens.callback(invoke_without_command=True)
def token(
    context: typer.Context,
    ttl: TtlOption = "1h",
    signer: Annotated[
        bool, typer.Option("--signer", help="The new node gets the CA keys and may sign too.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print a token with which one more host joins this cluster."""
    if context.invoked_subcommand is not None:
        return
    body = {"kind": "node", "ttl_s": token_ttl_s(ttl), "signer": signer, "for_cluster": None}
    print_token(AgentClient(Paths.from_environment()).post("tokens", body=body), output)


TOKEN_COLUMNS = (
    Column("ID", lambda row: row["id"]),
    Column("KIND", lambda row: row["kind"]),
    Column("SIGNER", lambda row: row["signer"]),
    Column("FOR CLUSTER", lambda row: row["for_cluster"]),
    Column("EXPIRES", lambda row: row["expires_at"]),
)


@tokens.command("list")
def list_tokens(output: OutputOption = Output.TABLE) -> None:
    """List the tokens that are still good. Their secrets are kept nowhere."""
    found = AgentClient(Paths.from_environment()).get("tokens")
    console.show(sorted(found, key=lambda row: row["expires_at"]), TOKEN_COLUMNS, output)


@tokens.command("revoke")
def revoke_token(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `cluster token list` shows it.")],
) -> None:
    """Make a token useless."""
    AgentClient(Paths.from_environment()).delete("tokens", id)
    console.progress(f"token {id} is revoked")
