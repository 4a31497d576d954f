"""The maps in the control plane's words: rows in, rows out, nothing above sees bytes.

Each class owns its maps' rows: it is their only writer, and what it keeps in memory it read
from the kernel when it was made. So an agent that starts again goes on where the last one
was killed.
"""

from __future__ import annotations

import ctypes
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping

import structlog

from meshnet.dataplane import abi, rows
from meshnet.dataplane.bpf import Map
from meshnet.errors import MapFull
from meshnet.model.addressing import Address, Prefix
from meshnet.model.dataplane import DropCount, EndpointRow, IpcacheRow, NodeRow

_U32 = struct.Struct("=I")
_IPCACHE = struct.Struct("=II")


class NodeMaps:
    """`nodes`, `node_by_address`, `pod_cidrs`.

    A row keeps its index as long as it exists, since ipcache rows point to it; a freed index
    is given away again only after all others, so that a late row points to nobody. A node
    with an IPv4 and an IPv6 underlay has two rows of one owner.
    """

    def __init__(self, nodes: Map, by_address: Map, pod_cidrs: Map) -> None:
        self._nodes = nodes
        self._by_address = by_address
        self._pod_cidrs = pod_cidrs
        self._owned: dict[Prefix, int] = {
            rows.unpack_prefix(key): _U32.unpack(value)[0] for key, value in pod_cidrs.items()
        }
        self.index: dict[Address, int] = {
            rows.known_address(key): _U32.unpack(value)[0] for key, value in by_address.items()
        }
        self.rows: dict[Address, NodeRow] = {}
        self._owner: dict[tuple[int, tuple[Prefix, ...]], int] = {}
        self._used = set(self.index.values())
        self._last_index = max(self._used, default=0)
        self._read()
        self._last_owner = max(self._owner.values(), default=0)

    def _read(self) -> None:
        more: defaultdict[int, list[Prefix]] = defaultdict(list)
        for prefix, owner in self._owned.items():
            more[owner].append(prefix)
        for address, index in self.index.items():
            data = self._nodes.lookup(_U32.pack(index))
            assert data is not None, "an array has every index"
            row = rows.unpack(abi.Node, data)
            self.rows[address] = node = rows.unpack_node(row, more[row.owner])
            self._owner[node.cluster_id, node.pod_cidrs] = row.owner

    def update(self, replace: Mapping[Address, NodeRow], delete: Iterable[Address]) -> None:
        gone = [address for address in delete if address in self.rows]
        touched = {prefix for a in (*gone, *replace) if a in self.rows
                   for prefix in self.rows[a].pod_cidrs}  # fmt: skip
        touched |= {prefix for row in replace.values() for prefix in row.pod_cidrs}
        for address in gone:
            self._remove(address)
        for address, row in replace.items():
            self._write(address, row)
        if touched:
            self._settle(touched)

    def _remove(self, address: Address) -> None:
        self._by_address.delete(rows.pack_address(address))
        index = self.index.pop(address)
        self._nodes.update(_U32.pack(index), bytes(abi.Node()))
        self._used.discard(index)
        del self.rows[address]

    def _write(self, address: Address, row: NodeRow) -> None:
        if len(row.gateways) > abi.NodeLimit.GATEWAYS:
            structlog.get_logger().warning(
                "node has more gateway addresses than are checked",
                node=str(address),
                ignored=[str(gateway) for gateway in row.gateways[abi.NodeLimit.GATEWAYS :]],
            )
        index = self.index.get(address) or self._free_index()
        data = bytes(rows.pack_node(row, owner=self._owner_of(row)))
        self._nodes.update(_U32.pack(index), data)
        self._by_address.update(rows.pack_address(address), _U32.pack(index))
        self._used.add(index)
        self.index[address], self.rows[address] = index, row

    def _owner_of(self, row: NodeRow) -> int:
        """The same for all rows of one node; a number is never given to another."""
        key = (row.cluster_id, row.pod_cidrs)
        if key not in self._owner:
            self._last_owner += 1
            self._owner[key] = self._last_owner
        return self._owner[key]

    def _free_index(self) -> int:
        capacity = self._nodes.spec.max_entries - 1
        for step in range(capacity):
            index = (self._last_index + step) % capacity + 1
            if index not in self._used:
                self._last_index = index
                return index
        raise MapFull("nodes", capacity=capacity)

    def _settle(self, touched: set[Prefix]) -> None:
        """Whose is each of these prefixes now? Where two claim one, the last row has it."""
        claims: dict[Prefix, int] = {}
        for row in self.rows.values():
            for prefix in touched.intersection(row.pod_cidrs):
                claims[prefix] = self._owner_of(row)
        for prefix in touched:
            key = rows.pack_prefix(prefix)
            if prefix not in claims:
                self._pod_cidrs.delete(key)
                self._owned.pop(prefix, None)
            elif self._owned.get(prefix) != claims[prefix]:
                self._pod_cidrs.update(key, _U32.pack(claims[prefix]))
                self._owned[prefix] = claims[prefix]


class IpcacheMaps:
    """`ipcache` for whole addresses, `ipcache_prefix` for shorter prefixes."""

    def __init__(self, whole: Map, prefixes: Map, nodes: NodeMaps) -> None:
        self._whole = whole
        self._prefixes = prefixes
        self._nodes = nodes

    def dump(self) -> dict[Prefix, IpcacheRow]:
        address = {index: address for address, index in self._nodes.index.items()}
        found: dict[Prefix, IpcacheRow] = {}
        whole = ((_WHOLE_LENGTH + key, value) for key, value in self._whole.items())
        for key, value in (*whole, *self._prefixes.items()):
            identity, index = _IPCACHE.unpack(value)
            found[rows.unpack_prefix(key)] = IpcacheRow(identity=identity, node=address.get(index))
        return found

    def update(self, replace: Mapping[Prefix, IpcacheRow], delete: Iterable[Prefix]) -> None:
        whole: list[tuple[bytes, bytes]] = []
        shorter: list[tuple[bytes, bytes]] = []
        for prefix, row in replace.items():
            index = self._nodes.index.get(row.node, 0) if row.node else 0
            value = _IPCACHE.pack(row.identity, index)
            if prefix.prefixlen == prefix.max_prefixlen:
                whole.append((rows.pack_address(prefix.network_address), value))
            else:
                shorter.append((rows.pack_prefix(prefix), value))
        self._whole.update_many(whole)
        self._prefixes.update_many(shorter)
        for prefix in delete:
            if prefix.prefixlen == prefix.max_prefixlen:
                self._whole.delete(rows.pack_address(prefix.network_address))
            else:
                self._prefixes.delete(rows.pack_prefix(prefix))


_WHOLE_LENGTH = _U32.pack(128)


class EndpointMaps:
    """`endpoints`, `endpoints_by_address`, and what `seen_identities` says of them."""

    def __init__(self, endpoints: Map, by_address: Map, seen: Map) -> None:
        self._endpoints = endpoints
        self._by_address = by_address
        self._seen = seen

    def dump(self) -> dict[int, EndpointRow]:
        return {
            _U32.unpack(key)[0]: rows.unpack_endpoint(rows.unpack(abi.Endpoint, value))
            for key, value in self._endpoints.items()
        }

    def _get(self, ifindex: int) -> EndpointRow | None:
        data = self._endpoints.lookup(_U32.pack(ifindex))
        return rows.unpack_endpoint(rows.unpack(abi.Endpoint, data)) if data else None

    def put(self, row: EndpointRow) -> None:
        before, data = self._get(row.ifindex), bytes(rows.pack_endpoint(row))
        self._endpoints.update(_U32.pack(row.ifindex), data)
        for address in row.addresses:
            self._by_address.update(rows.pack_address(address), data)
        if before:
            self._forget(before, keep=row.addresses)

    def delete(self, ifindex: int) -> None:
        row = self._get(ifindex)
        if row is None:
            return
        self._forget(row, keep=())
        self._endpoints.delete(_U32.pack(ifindex))
        gone = [key for key, _ in self._seen.items() if _U32.unpack_from(key)[0] == row.endpoint_id]
        self._seen.delete_many(gone)

    def _forget(self, row: EndpointRow, *, keep: tuple[Address, ...]) -> None:
        for address in row.addresses:
            key = rows.pack_address(address)
            data = self._by_address.lookup(key)
            # the address may belong to another endpoint by now
            if (
                address not in keep
                and data
                and rows.unpack(abi.Endpoint, data).ifindex == row.ifindex
            ):
                self._by_address.delete(key)

    def seen(self) -> list[dict[str, int]]:
        found = []
        for key, value in self._seen.items():
            row = rows.unpack(abi.SeenKey, key)
            (packets,) = struct.unpack("=Q", value)
            found.append(
                {"endpoint_id": row.endpoint_id, "identity": row.identity, "packets": packets}
            )
        return sorted(found, key=lambda row: (row["endpoint_id"], row["identity"]))


def sum_counts(per_cpu: bytes) -> tuple[int, int]:
    """(packets, bytes) over all CPUs."""
    size = ctypes.sizeof(abi.Count)
    counts = [
        rows.unpack(abi.Count, per_cpu[offset : offset + size])
        for offset in range(0, len(per_cpu), size)
    ]
    return sum(count.packets for count in counts), sum(count.bytes for count in counts)


def read_drops(drops: Map) -> list[DropCount]:
    """Rows that are not zero, in the order of the reasons' numbers."""
    found = []
    for key, value in drops.items():
        packets, size = sum_counts(value)
        if packets:
            reason, direction = divmod(_U32.unpack(key)[0], abi.Direction.COUNT)
            found.append(
                DropCount(
                    reason=abi.DropReason(reason).name,
                    direction=abi.Direction(direction).name.lower(),
                    packets=packets,
                    bytes=size,
                )
            )
    return found
