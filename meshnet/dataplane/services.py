"""`services`, `service_addresses`, `backends`, `backend_slots`: frontends and who answers them.

A change writes its backends and a fresh range of slots first and flips the service's row
last, so a connect sees the old set or the new one whole. Freed slots and backends are given
away again only after all others: a program that still holds an old index finds it unchanged.
Cost of one backend that changes in a service of 5 000: 40 kB copied into a mapping. The mapping
is there only meanwhile: all of it counts as the agent's memory, used or not.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from typing import Any

from meshnet.dataplane import abi, nat, rows
from meshnet.dataplane.bpf import Map
from meshnet.dataplane.conntrack import expires_s
from meshnet.dataplane.ranges import Ranges
from meshnet.errors import MapFull
from meshnet.model.addressing import Address
from meshnet.model.dataplane import ServiceRow
from meshnet.model.service import BackendAddress, Frontend, Protocol, SocketPeer

_U32 = struct.Struct("=I")
_ANY = _U32.pack(1)
_STRIDE = 8
"""Bytes from one slot to the next: the kernel rounds an array's values up."""
_SERVICE_OF = struct.Struct("=16xI")
"""Of an affinity_key."""
_BACKEND_OF = struct.Struct("=I4x")
"""Of an affinity."""
TICK_S = 2**30 / 1e9


class ServiceMaps:
    """The only writer of its maps; what it keeps in memory it read from them.

    Args:
        clients: `service_affinity`, which programs write: only taken from here.
    """

    def __init__(
        self,
        *,
        services: Map,
        addresses: Map,
        backends: Map,
        slots: Map,
        hits: Map,
        clients: Map,
    ) -> None:
        self._clients = clients
        self._services = services
        self._addresses = addresses
        self._backends = backends
        self._hits = hits
        self._slots = slots
        self._ranges = Ranges(slots.spec.max_entries)
        self._ids = Ranges(backends.spec.max_entries)
        self._ids.take(1)  # index 0 is nobody
        self.rows: dict[Frontend, ServiceRow] = {}
        self._places: dict[Frontend, abi.Service] = {}
        self._index: dict[BackendAddress, int] = {}
        self._state: dict[BackendAddress, abi.BackendState] = {}
        self._users: Counter[BackendAddress] = Counter()
        self._frontends: Counter[Address] = Counter()
        """Frontends that an address has. Programs only ask whether it has any."""
        self._last_id = 0
        self._left: set[tuple[int, int]] = set()
        """Service and backend, by their numbers, where clients may still be kept together."""
        self._read()

    def _read(self) -> None:
        address = {}
        for key, value in self._backends.items():
            row = rows.unpack(abi.Backend, value)
            if row.state != abi.BackendState.ABSENT:
                backend = _unpack(row)
                address[_U32.unpack(key)[0]] = backend
                self._index[backend] = _U32.unpack(key)[0]
                self._state[backend] = abi.BackendState(row.state)
                self._ids.claim(self._index[backend], 1)
        with self._mapped() as memory:
            self._read_services(memory, address)

    def _read_services(self, memory: mmap.mmap, address: Mapping[int, BackendAddress]) -> None:
        for key, value in self._services.items():
            place = rows.unpack(abi.Service, value)
            slots = tuple(address[index] for index in _indexes(memory, place) if index in address)
            frontend = _unpack(rows.unpack(abi.ServiceKey, key))
            self._ranges.claim(place.base, place.size)
            self._places[frontend] = place
            self._last_id = max(self._last_id, place.id)
            self.rows[frontend] = ServiceRow(
                slots=slots, affinity_s=math.floor(place.affinity_ticks * TICK_S)
            )
            self._users.update(set(slots))
            self._frontends[frontend.address] += 1
        wanted = {rows.pack_address(address) for address in self._frontends}
        self._addresses.update_many((key, _ANY) for key in wanted)
        self._addresses.delete_many([k for k, _ in self._addresses.items() if k not in wanted])

    def update(self, replace: Mapping[Frontend, ServiceRow], delete: Iterable[Frontend]) -> None:
        """Raises MapFull; the services before the one that did not fit are changed."""
        for frontend in delete:
            self._services.delete(_key(frontend))
            if frontend in self._places:
                self._close(frontend.address)
            self._leave(frontend)
        if replace:
            with self._mapped() as memory:
                for frontend, row in replace.items():
                    self._write(memory, frontend, row)
        for backend in [known for known in self._index if not self._users[known]]:
            self._forget(backend)  # an earlier agent's, which no service has any more
        self._release_clients()

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[mmap.mmap]:
        """All slots as memory."""
        size = self._slots.spec.max_entries * _STRIDE
        size += -size % mmap.PAGESIZE
        writable = mmap.PROT_READ | mmap.PROT_WRITE
        with mmap.mmap(self._slots.fd, size, mmap.MAP_SHARED, writable) as memory:
            yield memory

    def _write(self, memory: mmap.mmap, frontend: Frontend, row: ServiceRow) -> None:
        before, had = self._places.get(frontend), _used(self.rows.get(frontend))
        taking, used = set(row.slots), _used(row)
        for backend in used:
            self._want(
                backend,
                abi.BackendState.ACTIVE if backend in taking else abi.BackendState.TERMINATING,
            )
        base = self._fill(memory, row.slots)
        if before is None:
            self._last_id += 1
        place = abi.Service(
            id=before.id if before else self._last_id,
            base=base,
            size=len(row.slots),
            affinity_ticks=math.ceil(row.affinity_s / TICK_S),
        )
        self._services.update(_key(frontend), bytes(place))
        if before is None:
            self._open(frontend.address)
        else:
            self._ranges.free(before.base, before.size)
        self._users.update(used - had)
        self._drop(had - used)
        if before and (before.affinity_ticks or frontend.protocol is Protocol.UDP):
            others = (self._index[backend] for backend in had - used if backend in self._index)
            self._left |= {(before.id, index) for index in others}
        self._places[frontend], self.rows[frontend] = place, row

    def _open(self, address: Address) -> None:
        """One more frontend there."""
        if not self._frontends[address]:
            self._addresses.update(rows.pack_address(address), _ANY)
        self._frontends[address] += 1

    def _close(self, address: Address) -> None:
        self._frontends[address] -= 1
        if self._frontends[address] <= 0:
            del self._frontends[address]
            self._addresses.delete(rows.pack_address(address))

    def _fill(self, memory: mmap.mmap, slots: tuple[BackendAddress, ...]) -> int:
        base = self._ranges.take(len(slots))
        if base is None:
            raise MapFull("backend_slots", capacity=self._ranges.size)
        data = b"".join(_U32.pack(self._index[backend]) + bytes(4) for backend in slots)
        memory[base * _STRIDE : base * _STRIDE + len(data)] = data
        return base

    def _want(self, backend: BackendAddress, state: abi.BackendState) -> None:
        if self._state.get(backend) == state:
            return
        index = self._index.get(backend)
        if index is None:
            index = self._ids.take(1)
            if index is None:
                raise MapFull("backends", capacity=self._ids.size - 1)
            self._hits.update(_U32.pack(index), self._hits.zero)
            self._index[backend] = index
        self._state[backend] = state
        self._backends.update(_U32.pack(index), bytes(_pack(backend, state)))

    def _leave(self, frontend: Frontend) -> None:
        """What this service had: its range, and the backends nobody else has."""
        place, row = self._places.pop(frontend, None), self.rows.pop(frontend, None)
        if place is not None:
            self._ranges.free(place.base, place.size)
            self._drop(_used(row))

    def _drop(self, backends: Collection[BackendAddress]) -> None:
        """A service has them no more."""
        for backend in backends:
            self._users[backend] -= 1
            if self._users[backend] <= 0:
                self._forget(backend)

    def _forget(self, backend: BackendAddress) -> None:
        index = self._index.pop(backend)
        del self._state[backend], self._users[backend]
        self._backends.update(_U32.pack(index), bytes(abi.Backend()))
        self._ids.free(index, 1)

    def _release_clients(self) -> None:
        """Clients of a service whose backend left it, and is another service's still: a program
        sees only that the backend works. Reads a whole map, so only where there may be some."""
        if self._left:
            self._clients.delete_many(
                [
                    key
                    for key, value in self._clients.items()
                    if (*_SERVICE_OF.unpack(key), *_BACKEND_OF.unpack(value)) in self._left
                ]
            )
            self._left.clear()

    def hits(self) -> dict[BackendAddress, int]:
        """How many clients were given to each backend that there is."""
        found = {}
        for backend, index in self._index.items():
            per_cpu = self._hits.lookup(_U32.pack(index)) or b""
            found[backend] = sum(struct.unpack(f"={len(per_cpu) // 8}Q", per_cpu))
        return found


def _used(row: ServiceRow | None) -> Set[BackendAddress]:
    return set(row.slots) | row.terminating if row else frozenset()


def _indexes(memory: mmap.mmap, place: abi.Service) -> list[int]:
    start = place.base * _STRIDE
    data = memory[start : start + place.size * _STRIDE]
    return [_U32.unpack_from(data, offset)[0] for offset in range(0, len(data), _STRIDE)]


def unpack_service(key: bytes, value: bytes) -> dict[str, Any]:
    row = rows.unpack(abi.Service, value)
    return {
        **_fields(_unpack(rows.unpack(abi.ServiceKey, key))),
        "id": row.id,
        "base": row.base,
        "size": row.size,
        "affinity_s": math.floor(row.affinity_ticks * TICK_S),
    }


def unpack_backend(key: bytes, value: bytes) -> dict[str, Any]:
    row = rows.unpack(abi.Backend, value)
    state = abi.BackendState(row.state).name.lower()
    return {"backend_index": _U32.unpack(key)[0], **_fields(_unpack(row)), "state": state}


def unpack_affinity(key: bytes, value: bytes) -> dict[str, Any]:
    """A client at the socket is a cookie, on a packet an address."""
    client, row = rows.unpack(abi.AffinityKey, key), rows.unpack(abi.Affinity, value)
    data = bytes(client.client)
    cookie = not any(data[8:])
    return {
        "client": str(int.from_bytes(data[:8], "little") if cookie else rows.known_address(data)),
        "service_id": client.service,
        "backend_index": row.backend,
    }


def unpack_flow(key: bytes, value: bytes) -> dict[str, Any]:
    """One way of one translated flow: what has these ends gets the others."""
    row = rows.unpack(abi.ServiceFlow, value)
    flow, other = rows.unpack(abi.ServiceFlowKey, key), row.other
    return {
        "client": str(rows.known_address(bytes(flow.client))),
        "client_port": flow.client_port,
        "server": str(rows.known_address(bytes(flow.server))),
        "server_port": flow.server_port,
        "protocol": rows.protocol_name(flow.protocol),
        "becomes_client": str(rows.known_address(bytes(other.client))),
        "becomes_client_port": other.client_port,
        "becomes_server": str(rows.known_address(bytes(other.server))),
        "becomes_server_port": other.server_port,
        "way": abi.ServiceWay(row.way).name.lower(),
        "backend_index": row.backend,
        "state": nat.state(row.flags),
        "expires_s": expires_s(row.expires),
    }


def read_socket_peers(peers: Map) -> list[SocketPeer]:
    """Every row of `socket_peers`, 3 us each."""
    found = []
    for key, value in peers.items():
        row, asked = rows.unpack(abi.SocketPeerKey, key), rows.unpack(abi.SocketPeer, value)
        protocol = Protocol(row.protocol)
        frontend = Frontend(_address(asked.address), _be16(asked.port), protocol)
        backend = BackendAddress(_address(row.address), _be16(row.port), protocol)
        found.append(SocketPeer(row.cookie, frontend, backend))
    return found


def _address(packed: abi.Address) -> Address:
    return rows.known_address(bytes(packed))


def _fields(frontend: Frontend) -> dict[str, Any]:
    return {
        "address": str(frontend.address),
        "port": frontend.port,
        "protocol": frontend.protocol.name.lower(),
    }


def _key(frontend: Frontend) -> bytes:
    row = abi.ServiceKey(port=_be16(frontend.port), protocol=frontend.protocol)
    return rows.pack_address(frontend.address) + bytes(row)[16:]


def _pack(backend: BackendAddress, state: abi.BackendState) -> bytes:
    row = abi.Backend(port=_be16(backend.port), protocol=backend.protocol, state=state)
    return rows.pack_address(backend.address) + bytes(row)[16:]


def _unpack(row: abi.ServiceKey | abi.Backend) -> Frontend:
    return Frontend(_address(row.address), _be16(row.port), Protocol(row.protocol))


def _be16(number: int) -> int:
    """Between host order and the wire's, either way."""
    return int.from_bytes(number.to_bytes(2, "big"), "little")
