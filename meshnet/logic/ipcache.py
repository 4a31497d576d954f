"""What the maps and the lists must say, from what nodes and addresses are. Pure.

Whoever calls has decided what is believed (`admission`) and what still holds (`stale`);
here is only what follows. Rows of different clusters never share a key, so a caller may ask
for one cluster at a time and merge.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import attrs

from meshnet.logic.routing import PeerPath
from meshnet.model.addressing import Address, Prefix, host_prefix
from meshnet.model.dataplane import IpcacheRow, Modes, NodeRow
from meshnet.model.endpoint import EndpointState, IpEntry
from meshnet.model.identity import LabelSet, ReservedIdentity
from meshnet.model.node import Node


def outer_address(own: Node, other: Node) -> Address | None:
    """Where `own` sends what is for `other`: of a family both have, IPv4 preferred.

    Both ends come to the same answer, so a packet's outer source is always the address
    that its receiver has in its `nodes` map. None: they have no family in common.
    """
    for version in (4, 6):
        address = other.outer_address(version)
        if address is not None and own.outer_address(version) is not None:
            return address
    return None


def by_default(_: Address) -> PeerPath:
    """In VXLAN, by the kernel's routes."""
    return PeerPath(modes=Modes())


def node_rows(
    own: Node,
    nodes: Iterable[Node],
    *,
    path_mtu: int,
    path_mtus: Mapping[Address, int] | None = None,
    path_to: Callable[[Address], PeerPath] = by_default,
) -> dict[Address, NodeRow]:
    """`nodes` by outer address; the own node is marked local. Unreachable ones are left out.

    Args:
        path_mtu: bytes, outer headers included: what the underlay's interface takes.
        path_mtus: what probes found smaller, by outer address.
        path_to: how packets travel there, by outer address.
    """
    rows = {}
    for node in nodes:
        address = outer_address(own, node)
        if address is None:
            continue
        path = path_to(address)
        rows[address] = NodeRow(
            address=address,
            cluster_id=node.cluster_id,
            pod_cidrs=node.pod_cidrs,
            gateways=node.gateways,
            health=node.health,
            ingress=node.ingress,
            path_mtu=(path_mtus or {}).get(address, path_mtu),
            local=node.key == own.key,
            modes=path.modes,
            next_hops=path.next_hops,
            ifindex=path.ifindex,
        )
    return rows


def ipcache_rows(
    own: Node, nodes: Collection[Node], entries: Iterable[IpEntry]
) -> dict[Prefix, IpcacheRow]:
    """Who is behind an address: endpoints, and each node's own addresses in its PodCIDRs.

    An entry whose node is not known yet has no row: sent without a tunnel it would leave
    on the underlay in the clear, while a missing row only delays it.
    """
    outer = {address: outer_address(own, node) for node in nodes for address in node.addresses}
    rows: dict[Prefix, IpcacheRow] = {}
    for entry in entries:
        if entry.host is None:
            rows[entry.prefix] = IpcacheRow(identity=entry.identity, node=None)
        elif reached := outer.get(entry.host):
            rows[entry.prefix] = IpcacheRow(identity=entry.identity, node=reached)
    # Last, so that no entry can pass itself off as a node's own address.
    for node in nodes:
        reached = outer_address(own, node)
        for address, identity in _own_addresses(node, local=node.key == own.key):
            if reached:
                rows[host_prefix(address)] = IpcacheRow(identity=int(identity), node=reached)
    return rows


def _own_addresses(node: Node, *, local: bool) -> Iterable[tuple[Address, ReservedIdentity]]:
    """Those inside its PodCIDRs: Cilium names health and ingress in the node's key alone."""
    gateway = ReservedIdentity.HOST if local else ReservedIdentity.REMOTE_NODE
    yield from ((address, gateway) for address in node.gateways)
    yield from ((address, ReservedIdentity.HEALTH) for address in node.health)
    yield from ((address, ReservedIdentity.INGRESS) for address in node.ingress)


def underlay_rows(own: Node, nodes: Iterable[Node]) -> dict[Prefix, IpcacheRow]:
    """Nodes by their own addresses, which are reached without a tunnel: for policy they are
    nodes, not the world."""
    rows = {}
    for node in nodes:
        local = node.key == own.key
        identity = ReservedIdentity.HOST if local else ReservedIdentity.REMOTE_NODE
        for address in node.addresses:
            rows[host_prefix(address)] = IpcacheRow(identity=int(identity), node=None)
    return rows


def prefix_rows(prefixes: Mapping[Prefix, int]) -> dict[Prefix, IpcacheRow]:
    """Prefixes that policies name. Whatever an identity covers takes precedence over them."""
    return {prefix: IpcacheRow(identity=n, node=None) for prefix, n in prefixes.items()}


@attrs.frozen(kw_only=True)
class EndpointSummary:
    """One row of `meshnet endpoint list --all-clusters`; field names are its JSON keys."""

    name: str
    namespace: str
    cluster: str
    node: str
    id: int
    state: EndpointState
    identity: int
    labels: dict[str, str]
    """The user's."""
    ipv4: str | None = None
    ipv6: str | None = None


def endpoint_view(
    cluster: str,
    nodes: Iterable[Node],
    entries: Iterable[IpEntry],
    labels: Mapping[int, LabelSet],
    *,
    stale: Collection[Prefix] = (),
) -> list[EndpointSummary]:
    """The endpoints of one cluster, IPv4 and IPv6 entries of one endpoint merged.

    An entry of Cilium with Kubernetes names neither node nor endpoint id: the node is found
    by its address, and the endpoint by its name. Addresses with a reserved identity (health,
    ingress) are no endpoints.
    """
    by_address = {address: node.name for node in nodes for address in node.addresses}
    rows: dict[tuple[object, ...], EndpointSummary] = {}
    for entry in entries:
        if entry.identity <= max(ReservedIdentity):
            continue
        node = entry.node or (by_address.get(entry.host, "") if entry.host else "")
        whose: object = entry.endpoint_id or entry.name or entry.prefix
        key = (node, entry.namespace, whose)
        known = labels.get(entry.identity)
        row = rows.get(key) or EndpointSummary(
            name=entry.name,
            namespace=entry.namespace,
            cluster=cluster,
            node=node,
            id=entry.endpoint_id,
            state=EndpointState.READY,
            identity=entry.identity,
            labels=known.user_labels() if known else {},
        )
        rows[key] = _with_address(row, entry, stale=entry.prefix in stale)
    return sorted(rows.values(), key=lambda row: (row.namespace, row.name, row.node, row.id))


def _with_address(row: EndpointSummary, entry: IpEntry, *, stale: bool) -> EndpointSummary:
    prefix = entry.prefix
    whole = prefix.prefixlen == prefix.max_prefixlen
    text = str(prefix.network_address) if whole else str(prefix)
    state = EndpointState.STALE if stale else row.state
    if prefix.version == 4:
        return attrs.evolve(row, ipv4=text, state=state)
    return attrs.evolve(row, ipv6=text, state=state)
