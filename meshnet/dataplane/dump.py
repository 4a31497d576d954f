"""Any map as rows with named fields, for people: addresses as text, never bytes."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping
from typing import Any

from meshnet.dataplane import abi, conntrack, nat, policy_maps, rows, services
from meshnet.dataplane.bpf import Map
from meshnet.dataplane.events import EventRing
from meshnet.dataplane.maps import NodeMaps, read_drops, sum_counts
from meshnet.dataplane.schema import MapType
from meshnet.errors import NotFound
from meshnet.model.dataplane import MapUsage

Row = dict[str, Any]


def _u32(data: bytes) -> int:
    number: int = struct.unpack("=I", data)[0]
    return number


def _text(data: bytes) -> str | None:
    address = rows.unpack_address(data)
    return None if address is None else str(address)


def _endpoint(data: bytes) -> Row:
    row = rows.unpack(abi.Endpoint, data)
    return {
        "endpoint_id": row.endpoint_id,
        "identity": row.identity,
        "ipv4": _text(bytes(row.ipv4)),
        "ipv6": _text(bytes(row.ipv6)),
        "mac": rows.unpack_mac(row.mac),
        "ready": bool(row.flags & abi.EndpointFlag.READY),
        "policy_id": row.policy_id,
        "policy_epoch": row.policy_epoch,
        "audit": bool(row.flags & abi.EndpointFlag.AUDIT),
    }


def _ipcache(data: bytes) -> Row:
    row = rows.unpack(abi.Ipcache, data)
    return {"identity": row.identity, "node_index": row.node_index}


def _node(data: bytes) -> Row:
    row = rows.unpack(abi.Node, data)
    node = rows.unpack_node(row)
    return {
        "address": str(node.address),
        "cluster_id": node.cluster_id,
        "pod_cidrs": [str(prefix) for prefix in node.pod_cidrs],
        "gateways": [str(gateway) for gateway in node.gateways],
        "health": [str(address) for address in node.health],
        "ingress": [str(address) for address in node.ingress],
        "path_mtu_bytes": node.path_mtu,
        "mode_ipv4": node.modes.ipv4,
        "mode_ipv6": node.modes.ipv6,
        "next_hops": [str(hop) for hop in node.next_hops],
        "ifindex": node.ifindex,
        "local": node.local,
        "owner": row.owner,
    }


def _seen(key: bytes, value: bytes) -> Row:
    row = rows.unpack(abi.SeenKey, key)
    (packets,) = struct.unpack("=Q", value)
    return {"endpoint_id": row.endpoint_id, "identity": row.identity, "packets": packets}


def _counter(key: bytes, value: bytes) -> Row:
    packets, size = sum_counts(value)
    return {"counter": abi.Counter(_u32(key)).name.lower(), "packets": packets, "bytes": size}


_READERS: dict[str, Callable[[bytes, bytes], Row]] = {
    "endpoints": lambda key, value: {"ifindex": _u32(key), **_endpoint(value)},
    "endpoints_by_address": lambda key, value: {"address": _text(key), **_endpoint(value)},
    "ipcache": lambda key, value: {"address": _text(key), **_ipcache(value)},
    "ipcache_prefix": lambda key, value: {
        "prefix": str(rows.unpack_prefix(key)),
        **_ipcache(value),
    },
    "node_by_address": lambda key, value: {"address": _text(key), "node_index": _u32(value)},
    "pod_cidrs": lambda key, value: {
        "prefix": str(rows.unpack_prefix(key)),
        "owner": _u32(value),
    },
    "nodes": lambda key, value: {"node_index": _u32(key), **_node(value)},
    "seen_identities": _seen,
    "counters": _counter,
    "conntrack": conntrack.unpack_row,
    "services": services.unpack_service,
    "backends": services.unpack_backend,
    "service_affinity": services.unpack_affinity,
    "service_flows": services.unpack_flow,
    "nat": nat.unpack_row,
    "unmasqueraded": lambda key, _: {"prefix": str(rows.unpack_prefix(key))},
    "policy": policy_maps.unpack_policy,
    "policy_classes": policy_maps.unpack_class,
}

SHOWN = (*_READERS, "drops", "events")
"""The maps an operator is shown; the others are the programs' own."""


def dump(name: str, maps: Mapping[str, Map]) -> list[Row]:
    """Raises NotFound, with the names there are."""
    if name == "drops":
        return [
            {"reason": d.reason, "direction": d.direction, "packets": d.packets, "bytes": d.bytes}
            for d in read_drops(maps[name])
        ]
    if name not in _READERS:
        raise NotFound(
            f"there is no map {name!r} to dump: {', '.join(sorted((*_READERS, 'drops')))}"
        )
    read = _READERS[name]
    return [read(key, value) for key, value in maps[name].items() if _present(name, value)]


def _present(name: str, value: bytes) -> bool:
    """An array has every index; of these only those that are in use are rows."""
    return name not in ("nodes", "backends") or any(value)


def usage(opened: Map, nodes: NodeMaps, tracked: conntrack.FlowMap, events: EventRing) -> MapUsage:
    """How full a map is; of the ring, in records; of conntrack, when it was last swept."""
    spec = opened.spec
    if spec.type is MapType.RINGBUF:
        record = ctypes.sizeof(abi.Event) + 8
        entries, limit = events.unread_bytes // record, spec.max_entries // record
    elif spec.name == "nodes":
        entries, limit = len(nodes.index), spec.max_entries - 1
    elif spec.name == "conntrack":
        entries, limit = tracked.entries, spec.max_entries
    elif spec.type is MapType.PERCPU_ARRAY or spec.name == "backends":
        entries, limit = sum(any(value) for _, value in opened.items()), spec.max_entries
    else:
        entries, limit = opened.count(), spec.max_entries
    return MapUsage(name=spec.name, entries=entries, max_entries=limit)
