"""The agent's answers to read requests: cli.md's JSON, made from state, nothing stored."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import attrs

from meshnet import __version__
from meshnet.agent.context import Context
from meshnet.agent.peer_certificates import of_peers
from meshnet.agent.problems import (
    Problem,
    of_etcd,
    of_loops,
    of_maps,
    of_ownership,
    of_paths,
    of_remotes,
    of_resolver,
    of_tables,
    of_underlay,
)
from meshnet.dataplane.abi import DROP_TEXTS, DropReason
from meshnet.dataplane.rows import protocol_name
from meshnet.errors import NotFound
from meshnet.logic.ipcache import endpoint_view, outer_address
from meshnet.model.dataplane import DropEvent, MapUsage
from meshnet.model.endpoint import Endpoint
from meshnet.model.identity import Identity, ReservedIdentity
from meshnet.model.node import Node
from meshnet.model.remote import MirrorStatus, Remote, RemoteState
from meshnet.pki.certificate import Authority

Json = dict[str, Any]


def status(context: Context) -> Json:
    local = context.local
    usage = context.dataplane.maps()
    return {
        "ready": context.ready,
        "version": __version__,
        "cluster": {"name": local.cluster.name, "id": local.cluster.id},
        "node": {
            "name": local.name,
            "addresses": [str(address) for address in local.underlay.addresses],
            "pod_cidrs": [str(cidr.network) for cidr in local.pod_cidrs],
        },
        "etcd": {
            "connected": context.etcd_health.connected,
            "revision": context.etcd_health.revision,
            "managed": context.settings.etcd.managed,
        },
        "dataplane": {
            "loaded": True,
            "programs": context.dataplane.programs,
            "maps": [attrs.asdict(row) for row in usage],
        },
        "endpoints": len(context.endpoints.list()),
        "identities": len(context.view.tables.identities.items),
        "leader": context.leadership.leading,
        "certificates": context.keeper.expiries(),
        "peers": peers(context),
        "clusters": mesh(context),
        "problems": [attrs.asdict(problem) for problem in problems(context, usage)],
    }


def problems(context: Context, usage: list[MapUsage]) -> list[Problem]:
    health, tables = context.etcd_health, context.view.tables
    return [
        *of_etcd(health.connected, health.error),
        *of_loops(context.loops),
        *of_ownership(context.ownership.lost),
        *of_underlay(context.underlay.fault),
        *of_paths(path_mtus(context)),
        *of_tables(tables),
        *of_remotes(tables.mesh_status.items.values()),
        *of_maps(usage),
        *context.keeper.problems(),
        *of_resolver(context.resolver.error),
        *context.authorities.problems(),
        *of_peers(
            tables.remotes.items.values(),
            context.pki.authorities(Authority.MESH),
            now=datetime.now(UTC),
        ),
    ]


def path_mtus(context: Context) -> dict[str, tuple[int, int]]:
    """Of each node that IPv6 packets of endpoints may go to."""
    own = context.local.as_node()
    found = {}
    for node in context.view.nodes():
        address = outer_address(own, node)
        if node.key != own.key and address is not None and context.local.pod_cidr(6):
            room = context.paths.room(address, 6)
            found[f"node {node.name} of cluster {node.cluster}"] = (
                context.paths.path_mtu(address),
                room,
            )
    return found


def peers(context: Context) -> list[Json]:
    own = context.local.as_node()
    rows = []
    for node in sorted(context.view.nodes(), key=lambda node: node.key):
        address = outer_address(own, node)
        if node.key == own.key or address is None:
            continue
        health = context.prober.health.get(address)
        path = context.paths.path(address)
        rows.append(
            {
                "node": node.name,
                "cluster": node.cluster,
                "address": str(address),
                "mode": path.summary,
                "modes": {"ipv4": path.modes.ipv4, "ipv6": path.modes.ipv6},
                "path_mtu_bytes": context.paths.path_mtu(address),
                "rtt_ms": health.rtt_ms if health else None,
                "reachable": bool(health and health.reachable),
            }
        )
    return rows


def mesh(context: Context) -> list[Json]:
    """One row a remote, from what the leader publishes of its mirrors."""
    rows = []
    for remote in context.view.tables.remotes.items.values():
        report = context.view.mirror_status(remote.name) or MirrorStatus(
            name=remote.name, id=remote.id, error=_not_reported(remote)
        )
        row = attrs.asdict(report)
        row["state"] = remote.state
        row["certificate_expires_at"] = context.keeper.mirror_expires_at()
        rows.append(row)
    return sorted(rows, key=lambda row: row["name"])


def _not_reported(remote: Remote) -> str:
    if remote.state is RemoteState.PENDING:
        return "the join is not finished: both sides must reach each other's gateways"
    return "no mesh leader has reported of it yet"


def endpoints(context: Context, scope: str) -> list[Json]:
    """`scope`: `node`, `cluster` or `mesh`."""
    view = context.view
    labels = view.labels()
    rows = [
        attrs.asdict(row)
        for cluster, effective in view.clusters.items()
        if scope == "mesh" or cluster == view.own
        for row in endpoint_view(
            cluster,
            effective.nodes.values(),
            effective.ips.values(),
            labels,
            stale=effective.stale_ips,
        )
        if not (cluster == view.own and row.node == context.local.name)
    ]
    own = [_summary(context, endpoint) for endpoint in context.endpoints.list()]
    rows = own if scope == "node" else own + rows
    return sorted(rows, key=lambda row: (row["cluster"], row["namespace"], row["name"]))


def endpoint(context: Context, found: Endpoint) -> Json:
    """Everything the node knows of one of its endpoints."""
    return _summary(context, found) | {
        "netns": found.netns,
        "owns_netns": found.owns_netns,
        "ifname": found.ifname,
        "audit": found.audit,
        "host_ifname": found.host_ifname,
        "ports": found.ports,
        "owner_pid": found.owner.pid if found.owner else None,
        "log": found.log,
        "resolvers": [] if context.resolver.error else [str(a) for a in context.local.gateways],
    }


def _summary(context: Context, found: Endpoint) -> Json:
    return {
        "name": found.name,
        "namespace": found.namespace,
        "cluster": context.local.cluster.name,
        "node": context.local.name,
        "id": found.id,
        "state": found.state,
        "identity": found.identity,
        "labels": found.labels,
        "ipv4": str(found.ipv4),
        "ipv6": str(found.ipv6) if found.ipv6 else None,
    }


def identities(context: Context) -> list[Json]:
    rows = [
        {"number": int(reserved), "cluster": "", "labels": {f"reserved:{_name(reserved)}": ""}}
        for reserved in ReservedIdentity
        if reserved is not ReservedIdentity.UNKNOWN
    ]
    rows += [_identity(context, found) for found in context.view.identities()]
    return sorted(rows, key=lambda row: row["number"])


def identity(context: Context, number: int) -> Json:
    for row in identities(context):
        if row["number"] == number:
            return row
    raise NotFound(f"identity {number} is unknown; `meshnet identity list` shows all there are")


def _identity(context: Context, found: Identity) -> Json:
    cluster = context.view.cluster_name(found.cluster_id)
    return {"number": found.number, "cluster": cluster, "labels": found.labels.as_dict()}


def _name(reserved: ReservedIdentity) -> str:
    return reserved.name.lower().replace("_", "-")


def nodes(context: Context) -> list[Json]:
    stale = {
        (cluster, name)
        for cluster, effective in context.view.clusters.items()
        for name in effective.stale_nodes
    }
    return [_node(node, stale=node.key in stale) for node in _sorted(context.view.nodes())]


def node(context: Context, name: str) -> Json:
    """By `name`, unique in the mesh, or `cluster/name`."""
    matches = [row for row in nodes(context) if name in (row["name"], _path(row))]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise NotFound(f"node {name!r} is in several clusters: {', '.join(map(_path, matches))}")
    raise NotFound(f"no node {name!r}; `meshnet node list` shows all there are")


def _path(row: Json) -> str:
    return f"{row['cluster']}/{row['name']}"


def _node(found: Node, *, stale: bool) -> Json:
    return {
        "name": found.name,
        "cluster": found.cluster,
        "cluster_id": found.cluster_id,
        "addresses": [str(address) for address in found.addresses],
        "gateways": [str(address) for address in found.gateways],
        "pod_cidrs": [str(prefix) for prefix in found.pod_cidrs],
        "state": "stale" if stale else "ready",
    }


def _sorted(found: Iterable[Node]) -> list[Node]:
    return sorted(found, key=lambda node: node.key)


def drops(context: Context) -> list[Json]:
    return [
        attrs.asdict(row) | {"text": DROP_TEXTS[DropReason[row.reason]]}
        for row in context.dataplane.drops()
    ]


def drop_events(context: Context, last: int | None = None) -> list[Json]:
    """The newest drops with both identities and the line of C that dropped them, oldest
    first; `last`: no more than so many."""
    monotonic_to_wall = time.time() - time.monotonic()
    events = context.events.newest()
    return [
        attrs.asdict(event)
        | {"time": _moment(event.time_ns / 1e9 + monotonic_to_wall)}
        | {"source": str(event.source or ""), "destination": str(event.destination or "")}
        | {"protocol": protocol_name(event.protocol)}
        | {"rule": _rule_name(context, event)}
        for event in (events[-last:] if last else events)
    ]


def _rule_name(context: Context, event: DropEvent) -> str:
    """The policy rule that decided, or the default; empty for a drop that policy had no part in."""
    if not event.reason.startswith("POLICY_"):
        return ""
    title = context.enforcement.rules.get(event.rule)
    return " ".join(title) if title else "default deny"


def seen(context: Context) -> list[Json]:
    """Which identities each endpoint here received packets from."""
    by_id = {endpoint.id: endpoint for endpoint in context.endpoints.list()}
    rows = []
    for row in context.dataplane.seen_identities():
        found = by_id.get(row["endpoint_id"])
        if found is not None:
            rows.append(
                {
                    "endpoint": found.name,
                    "namespace": found.namespace,
                    "identity": row["identity"],
                    "packets": row["packets"],
                }
            )
    return sorted(rows, key=lambda row: (row["namespace"], row["endpoint"], row["identity"]))


def _moment(seconds: float | None) -> str | None:
    """RFC 3339."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
