"""The dataplane in process: it understands its rows and says what becomes of a packet.

Agent tests run over it, and the randomised test of the real programs compares with it: the
rules of bpf/include/{endpoint,ipcache,sender}.h once more, in the shortest Python.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

import attrs

from meshnet.dataplane.abi import DropReason
from meshnet.dataplane.memory_policy import MemoryPolicy
from meshnet.dataplane.schema import PROGRAMS
from meshnet.errors import NotFound
from meshnet.model.addressing import Address, Prefix, contains, host_prefix
from meshnet.model.dataplane import (
    DropCount,
    DropEvent,
    EndpointRow,
    IpcacheRow,
    MapUsage,
    Mode,
    NodeConfig,
    NodeRow,
    ServiceRow,
)
from meshnet.model.identity import ReservedIdentity, cluster_of
from meshnet.model.service import BackendAddress, Frontend, SocketPeer

LINK_LOCAL: Prefix = ip_network("fe80::/10")


@attrs.frozen
class Fate:
    """What becomes of a packet."""

    way: Literal["stack", "local", "tunnel", "native", "world", "untouched", "drop"]
    ifindex: int | None = None
    """local: of the endpoint that gets it."""
    node: Address | None = None
    """tunnel: the outer destination; native: the node that has it."""
    identity: int | None = None
    """local and tunnel: the sender's."""
    reason: DropReason = DropReason.NONE


@attrs.define
class _Drop(Exception):
    reason: DropReason


class MemoryDataplane(MemoryPolicy):
    """Rows in dictionaries. `index` is stable as the kernel's is."""

    def __init__(self) -> None:
        super().__init__()
        self._config: NodeConfig | None = None
        self._nodes: dict[Address, NodeRow] = {}
        self._index: dict[Address, int] = {}
        self._ipcache: dict[Prefix, tuple[int, int]] = {}
        self._endpoints: dict[int, EndpointRow] = {}
        self._services: dict[Frontend, ServiceRow] = {}
        self.sockets_of: Path | None = None
        self.socket_peers: Callable[[], list[SocketPeer]] = list  # there are no sockets
        self._seen: Counter[tuple[int, int]] = Counter()
        self._drops: Counter[tuple[DropReason, str]] = Counter()
        self._events: list[DropEvent] = []
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    # --- the port ------------------------------------------------------------------------

    def configure(self, config: NodeConfig) -> None:
        self._config = config

    def nodes(self) -> dict[Address, NodeRow]:
        return dict(self._nodes)

    def update_nodes(self, replace: Mapping[Address, NodeRow], delete: Iterable[Address]) -> None:
        for address in delete:
            self._nodes.pop(address, None)
            self._index.pop(address, None)
        for address, row in replace.items():
            self._nodes[address] = row
            self._index.setdefault(address, max(self._index.values(), default=0) + 1)

    def ipcache(self) -> dict[Prefix, IpcacheRow]:
        address = {index: address for address, index in self._index.items()}
        return {
            prefix: IpcacheRow(identity=identity, node=address.get(index))
            for prefix, (identity, index) in self._ipcache.items()
        }

    def update_ipcache(
        self, replace: Mapping[Prefix, IpcacheRow], delete: Iterable[Prefix]
    ) -> None:
        for prefix, row in replace.items():
            index = self._index.get(row.node, 0) if row.node else 0
            self._ipcache[prefix] = (row.identity, index)
        for prefix in delete:
            self._ipcache.pop(prefix, None)

    def endpoints(self) -> dict[int, EndpointRow]:
        return dict(self._endpoints)

    def attach_endpoint(self, row: EndpointRow) -> None:
        self._endpoints[row.ifindex] = row

    def update_endpoint(self, row: EndpointRow) -> None:
        self._endpoints[row.ifindex] = row

    def detach_endpoint(self, ifindex: int) -> None:
        row = self._endpoints.pop(ifindex, None)
        for key in [key for key in self._seen if row and key[0] == row.endpoint_id]:
            del self._seen[key]

    def attach_sockets(self, cgroup: Path) -> None:
        self.sockets_of = cgroup

    def services(self) -> dict[Frontend, ServiceRow]:
        return dict(self._services)

    def update_services(
        self, replace: Mapping[Frontend, ServiceRow], delete: Iterable[Frontend]
    ) -> None:
        for frontend in delete:
            self._services.pop(frontend, None)
        self._services.update(replace)

    def backend_hits(self) -> dict[BackendAddress, int]:
        rows = self._services.values()
        return {backend: 0 for row in rows for backend in (*row.slots, *row.terminating)}

    def maps(self) -> list[MapUsage]:
        sizes = {name: len(self.dump(name)) for name in _DUMPED}
        return [MapUsage(name=n, entries=size, max_entries=1 << 20) for n, size in sizes.items()]

    def dump(self, name: str) -> list[dict[str, Any]]:
        if name not in _DUMPED:
            raise NotFound(f"there is no map {name!r} to dump: {', '.join(sorted(_DUMPED))}")
        rows: list[dict[str, Any]] = _DUMPED[name](self)
        return rows

    def sweep_conntrack(self) -> int:
        return 0  # it remembers no flows

    def drops(self) -> list[DropCount]:
        return [
            DropCount(reason=reason.name, direction=direction, packets=packets, bytes=0)
            for (reason, direction), packets in sorted(self._drops.items())
        ]

    def seen_identities(self) -> list[dict[str, int]]:
        return [
            {"endpoint_id": endpoint, "identity": identity, "packets": packets}
            for (endpoint, identity), packets in sorted(self._seen.items())
        ]

    @property
    def programs(self) -> int:
        return len(PROGRAMS) if self._config else 0

    def events_fd(self) -> int:
        return self._ready

    def read_events(self) -> list[DropEvent]:
        events, self._events = self._events, []
        if events:
            os.eventfd_read(self._ready)
        return events

    def close(self) -> None:
        os.close(self._ready)

    def unload(self) -> None:
        self.close()
        self._config = None
        self._nodes, self._index, self._ipcache, self._endpoints = {}, {}, {}, {}

    # --- what becomes of a packet ----------------------------------------------------------

    def from_endpoint(self, ifindex: int, source: Address, destination: Address) -> Fate:
        """A packet that the endpoint behind this interface sends."""
        try:
            return self._leave(ifindex, source, destination)
        except _Drop as drop:
            return self._dropped(drop.reason, "egress", source, destination, ifindex)

    def from_underlay(
        self, outer: Address, vni: int, source: Address, destination: Address
    ) -> Fate:
        """A packet that another node tunnelled to this one."""
        try:
            return self._arrive(outer, vni, source, destination)
        except _Drop as drop:
            return self._dropped(drop.reason, "ingress", source, destination, 0)

    def from_wire(self, source: Address, destination: Address) -> Fate:
        """A packet on the underlay that no tunnel carries."""
        try:
            return self._pass(source, destination)
        except _Drop as drop:
            return self._dropped(drop.reason, "ingress", source, destination, 0)

    def _leave(self, ifindex: int, source: Address, destination: Address) -> Fate:
        _check_martians(source, destination)
        sender = self._endpoints.get(ifindex)
        if sender is None:
            raise _Drop(DropReason.UNKNOWN_ENDPOINT)
        on_link = contains(LINK_LOCAL, source) or (source.version == 6 and source.is_unspecified)
        if on_link and (destination.is_multicast or contains(LINK_LOCAL, destination)):
            return Fate("stack")
        if source not in sender.addresses:
            raise _Drop(DropReason.INVALID_SOURCE)
        if not sender.ready:
            raise _Drop(DropReason.ENDPOINT_NOT_READY)
        if destination in self._own():
            return Fate("stack")
        if (receiver := self._endpoint_of(destination)) is not None:
            return self._deliver(receiver, sender.identity)
        row = self._lookup(destination)
        if row is None and any(contains(p, destination) for p in self._pod_cidrs()):
            raise _Drop(DropReason.UNKNOWN_DESTINATION)
        if row is None or not row[1]:
            return Fate("world" if self._masquerades(destination, row) else "stack")
        node = next((a for a, index in self._index.items() if index == row[1]), None)
        if node is None:
            raise _Drop(DropReason.UNKNOWN_NODE)
        if self._nodes[node].local:
            raise _Drop(DropReason.UNKNOWN_DESTINATION)
        modes = self._nodes[node].modes
        native = (modes.ipv4 if destination.version == 4 else modes.ipv6) is Mode.NATIVE
        return Fate("native" if native else "tunnel", node=node, identity=sender.identity)

    def _masquerades(self, destination: Address, row: tuple[int, int] | None) -> bool:
        config = self._configured()
        if config.masquerade_ports is None or destination.is_multicast:
            return False
        if row is not None and cluster_of(row[0]):
            return False
        return not any(contains(prefix, destination) for prefix in config.unmasqueraded)

    def _arrive(self, outer: Address, vni: int, source: Address, destination: Address) -> Fate:
        _check_martians(source, destination)
        if source.is_unspecified:
            raise _Drop(DropReason.MARTIAN_SOURCE)
        node = self._nodes.get(outer)
        if node is None or node.local:
            raise _Drop(DropReason.UNKNOWN_OUTER_SOURCE)
        if not cluster_of(vni):
            allowed, reason = _reserved(node).get(vni, ((), DropReason.INVALID_IDENTITY))
            if source not in allowed:
                raise _Drop(reason)
        elif cluster_of(vni) != node.cluster_id:
            raise _Drop(DropReason.FOREIGN_IDENTITY)
        elif not any(contains(prefix, source) for prefix in node.pod_cidrs):
            raise _Drop(DropReason.SOURCE_NOT_OF_NODE)
        if (receiver := self._endpoint_of(destination)) is not None:
            return self._deliver(receiver, vni)
        config = self._configured()
        if destination in (config.gateway_ipv4, config.gateway_ipv6):
            return Fate("stack")
        raise _Drop(DropReason.NOT_OURS)

    def _pass(self, source: Address, destination: Address) -> Fate:
        config = self._configured()
        if destination in (config.underlay_ipv4, config.underlay_ipv6):
            return Fate("untouched")
        row = self._lookup(source)
        if not (row and row[1]) and not any(contains(p, source) for p in self._pod_cidrs()):
            return Fate("untouched")
        receiver = self._endpoint_of(destination)
        host = destination in (config.gateway_ipv4, config.gateway_ipv6)
        here = any(contains(p, destination) for r in self._nodes.values() if r.local
                   for p in r.pod_cidrs)  # fmt: skip
        if receiver is None and not host and not here:
            return Fate("untouched")
        if not config.accept_native:
            raise _Drop(DropReason.NATIVE_REFUSED)
        identity = self._native_sender(source, row)
        if receiver is not None:
            return self._deliver(receiver, identity)
        if host:
            return Fate("stack")
        raise _Drop(DropReason.NOT_OURS)

    def _native_sender(self, source: Address, row: tuple[int, int] | None) -> int:
        """The identity that ipcache has for a source, if the node it names may send that."""
        found = [a for a, index in self._index.items() if row and index == row[1]]
        node = self._nodes.get(found[0]) if found else None
        if row is None or node is None or node.local:
            raise _Drop(DropReason.NATIVE_SOURCE)
        if row[0] == ReservedIdentity.REMOTE_NODE:
            true_to_node = source in node.gateways
        else:
            true_to_node = cluster_of(row[0]) == node.cluster_id and any(
                contains(prefix, source) for prefix in node.pod_cidrs
            )
        if not true_to_node:
            raise _Drop(DropReason.NATIVE_SOURCE)
        return row[0]

    def _deliver(self, receiver: EndpointRow, identity: int) -> Fate:
        if not receiver.ready:
            raise _Drop(DropReason.ENDPOINT_NOT_READY)
        self._seen[receiver.endpoint_id, identity] += 1
        return Fate("local", ifindex=receiver.ifindex, identity=identity)

    def _dropped(
        self, why: DropReason, direction: str, source: Address, destination: Address, ifindex: int
    ) -> Fate:
        self._drops[why, direction] += 1
        self._events.append(
            DropEvent(
                time_ns=0, reason=why.name, direction=direction, source_identity=0,
                destination_identity=0, source=source, destination=destination, source_port=0,
                destination_port=0, protocol=0, length=0, ifindex=ifindex, file="memory.py", line=0,
            )
        )  # fmt: skip
        os.eventfd_write(self._ready, 1)
        return Fate("drop", reason=why)

    def _configured(self) -> NodeConfig:
        assert self._config is not None, "configure() comes first"
        return self._config

    def _own(self) -> tuple[Address | None, ...]:
        c = self._configured()
        return (c.gateway_ipv4, c.gateway_ipv6, c.underlay_ipv4, c.underlay_ipv6)

    def _endpoint_of(self, address: Address) -> EndpointRow | None:
        return next((row for row in self._endpoints.values() if address in row.addresses), None)

    def _pod_cidrs(self) -> Iterable[Prefix]:
        return (prefix for row in self._nodes.values() for prefix in row.pod_cidrs)

    def _lookup(self, address: Address) -> tuple[int, int] | None:
        """The row of the longest prefix."""
        if (whole := self._ipcache.get(host_prefix(address))) is not None:
            return whole
        found = [prefix for prefix in self._ipcache if contains(prefix, address)]
        return self._ipcache[max(found, key=lambda p: p.prefixlen)] if found else None


def _reserved(node: NodeRow) -> dict[int, tuple[tuple[Address, ...], DropReason]]:
    """Reserved identity -> the sources that may have it, and what all others are refused as."""
    return {
        ReservedIdentity.HOST: ((), DropReason.IDENTITY_HOST),
        ReservedIdentity.WORLD: ((), DropReason.IDENTITY_WORLD),
        ReservedIdentity.HEALTH: (node.health, DropReason.IDENTITY_HEALTH),
        ReservedIdentity.REMOTE_NODE: (node.gateways, DropReason.REMOTE_NODE_SOURCE),
        ReservedIdentity.INGRESS: (node.ingress, DropReason.IDENTITY_INGRESS),
    }


def _is_martian(address: Address) -> bool:
    if address.version == 6:
        return address.is_loopback
    top = address.packed[0]
    return top in (0, 127) or top >= 240


def _check_martians(source: Address, destination: Address) -> None:
    if _is_martian(source) or source.is_multicast:
        raise _Drop(DropReason.MARTIAN_SOURCE)
    broadcast = str(destination) == "255.255.255.255"
    if destination.is_unspecified or (_is_martian(destination) and not broadcast):
        raise _Drop(DropReason.MARTIAN_DESTINATION)


def _dump_endpoints(memory: MemoryDataplane) -> list[dict[str, Any]]:
    return [
        {"ifindex": row.ifindex, "endpoint_id": row.endpoint_id, "identity": row.identity}
        for row in memory._endpoints.values()
    ]


def _dump_ipcache(memory: MemoryDataplane) -> list[dict[str, Any]]:
    return [
        {"address": str(prefix.network_address), "identity": identity, "node_index": index}
        for prefix, (identity, index) in memory._ipcache.items()
        if prefix.prefixlen == prefix.max_prefixlen
    ]


def _dump_nodes(memory: MemoryDataplane) -> list[dict[str, Any]]:
    return [
        {"node_index": memory._index[address], "address": str(address)} for address in memory._nodes
    ]


_DUMPED = {"endpoints": _dump_endpoints, "ipcache": _dump_ipcache, "nodes": _dump_nodes}
