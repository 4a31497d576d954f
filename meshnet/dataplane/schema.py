"""Every map of the dataplane: one table, from which maps are made, checked and read.

C sees the same names as `MAP(name)` (bpf/include/maps.h says who writes what). Key and
value layouts come from the generated `abi`; only types, sizes and flags are decided here.
"""

from __future__ import annotations

import ctypes
import enum
from hashlib import sha256

import attrs

from meshnet.dataplane import abi

Layout = type[ctypes.Structure] | type[ctypes.c_uint32] | type[ctypes.c_uint64]


class MapType(enum.IntEnum):
    """enum bpf_map_type (include/uapi/linux/bpf.h)."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    RINGBUF = 27


class MapFlag(enum.IntFlag):
    NONE = 0
    NO_PREALLOC = 1
    MMAPABLE = 1 << 10
    RDONLY_PROG = 1 << 7


PLACEHOLDER = 0x7F000000
"""In the bytecode, where the loader puts file descriptors: this plus the map's place below."""


@attrs.frozen(kw_only=True)
class Sizes:
    """Rows a map may have. The defaults are for a mesh of 250 clusters."""

    endpoints: int = 4_096
    ipcache: int = 250_000
    prefixes: int = 65_536
    nodes: int = 25_000
    seen_identities: int = 65_536
    policy: int = 524_288
    """Rows of {policy id, direction, remote}; twice while a policy of many remotes changes."""
    policy_classes: int = 262_144
    conntrack: int = 262_144
    """112 bytes each in the kernel, taken at the start."""
    services: int = 65_536
    """Frontends."""
    backends: int = 65_536
    backend_slots: int = 524_288
    """One for each unit of a backend's weight, twice over while a service changes."""
    service_clients: int = 65_536
    """Sockets and clients that have a backend of their own."""
    service_flows: int = 65_536
    """Two for each flow to a service that is translated by packet."""
    fragments: int = 8_192
    """Fragmented packets under way."""
    nat: int = 131_072
    """Two for each masqueraded flow."""
    unmasqueraded: int = 1_024
    events_bytes: int = 1 << 20
    """A power of two, and a multiple of the page size. Twice this is in the agent's RSS from the
    start, since the kernel maps the ring twice and at once (seen: 32 MB for 16 MB)."""

    @classmethod
    def lab(cls) -> Sizes:
        """For many nodes on one machine."""
        return cls(
            endpoints=256,
            ipcache=16_384,
            prefixes=4_096,
            nodes=256,
            seen_identities=4_096,
            policy=32_768,
            policy_classes=16_384,
            conntrack=16_384,
            services=4_096,
            backends=4_096,
            backend_slots=32_768,
            service_clients=4_096,
            service_flows=4_096,
            fragments=1_024,
            nat=8_192,
            unmasqueraded=64,
            events_bytes=1 << 16,
        )


@attrs.frozen(kw_only=True)
class MapSpec:
    name: str
    type: MapType
    key: Layout | None
    """None: the map has no keys (ring buffer)."""
    value: Layout | None
    max_entries: int
    flags: MapFlag = MapFlag.NONE
    per_generation: bool = False
    """Pinned with the programs of one generation, not shared by all of them."""

    @property
    def key_size(self) -> int:
        return ctypes.sizeof(self.key) if self.key else 0

    @property
    def value_size(self) -> int:
        return ctypes.sizeof(self.value) if self.value else 0

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """What the kernel tells of a map, and does not compare by itself."""
        return (self.type, self.key_size, self.value_size, self.max_entries, self.flags)


def schema(sizes: Sizes) -> tuple[MapSpec, ...]:
    """All maps. The order is part of the bytecode: append only."""
    u32, u64 = ctypes.c_uint32, ctypes.c_uint64
    hashed, lpm, lazy = MapType.HASH, MapType.LPM_TRIE, MapFlag.NO_PREALLOC
    array, percpu = MapType.ARRAY, MapType.PERCPU_ARRAY
    lru, ring = MapType.LRU_HASH, MapType.RINGBUF
    reasons, classes = max(abi.DropReason) + 1, sizes.policy_classes

    def spec(
        name: str,
        kind: MapType,
        key: Layout | None,
        value: Layout | None,
        entries: int,
        flags: MapFlag = MapFlag.NONE,
        per_generation: bool = False,
    ) -> MapSpec:
        return MapSpec(
            name=name,
            type=kind,
            key=key,
            value=value,
            max_entries=entries,
            flags=flags,
            per_generation=per_generation,
        )

    return (
        spec("config", array, u32, abi.Config, 1, MapFlag.RDONLY_PROG, per_generation=True),
        spec("stages", MapType.PROG_ARRAY, u32, u32, abi.Stage.COUNT, per_generation=True),
        spec("scratch", percpu, u32, abi.Packet, abi.ScratchSlot.COUNT),
        spec("endpoints", hashed, u32, abi.Endpoint, sizes.endpoints, lazy),
        spec("endpoints_by_address", hashed, abi.Address, abi.Endpoint, 2 * sizes.endpoints, lazy),
        spec("ipcache", hashed, abi.Address, abi.Ipcache, sizes.ipcache, lazy),
        spec("ipcache_prefix", lpm, abi.Prefix, abi.Ipcache, sizes.prefixes, lazy),
        spec("nodes", array, u32, abi.Node, sizes.nodes),
        spec("node_by_address", hashed, abi.Address, u32, sizes.nodes, lazy),
        spec("pod_cidrs", lpm, abi.Prefix, u32, 4 * sizes.nodes, lazy),
        spec("drops", percpu, u32, abi.Count, reasons * abi.Direction.COUNT),
        spec("counters", percpu, u32, abi.Count, abi.Counter.COUNT),
        spec("seen_identities", lru, abi.SeenKey, u64, sizes.seen_identities),
        spec("events", ring, None, None, sizes.events_bytes),
        spec("event_buckets", percpu, u32, abi.EventBucket, reasons),
        spec("conntrack", lru, abi.ConntrackKey, abi.Conntrack, sizes.conntrack),
        spec("services", hashed, abi.ServiceKey, abi.Service, sizes.services, lazy),
        spec("backends", array, u32, abi.Backend, sizes.backends),
        spec("backend_slots", array, u32, u32, sizes.backend_slots, MapFlag.MMAPABLE),
        spec("backend_hits", percpu, u32, u64, sizes.backends),
        spec("service_affinity", lru, abi.AffinityKey, abi.Affinity, sizes.service_clients),
        spec("socket_peers", lru, abi.SocketPeerKey, abi.SocketPeer, sizes.service_clients),
        spec("fragments", lru, abi.FragmentKey, abi.Fragment, sizes.fragments),
        spec("nat", lru, abi.NatKey, abi.Nat, sizes.nat),
        spec("unmasqueraded", lpm, abi.Prefix, u32, sizes.unmasqueraded, lazy),
        spec("policy", hashed, abi.PolicyKey, u32, sizes.policy, lazy),
        spec("policy_classes", lpm, abi.PolicyClassKey, abi.PolicyRuling, classes, lazy),
        spec("icmp_budget", percpu, u32, abi.EventBucket, 1),
        spec("service_addresses", hashed, abi.Address, u32, sizes.services, lazy),
        spec("service_flows", lru, abi.ServiceFlowKey, abi.ServiceFlow, sizes.service_flows),
    )


STAGES: dict[abi.Stage, str] = {
    abi.Stage.DELIVER_LOCAL: "deliver_local",
    abi.Stage.ENCAPSULATE: "encapsulate",
    abi.Stage.NEIGHBOUR: "neighbour",
    abi.Stage.SEND_NATIVE: "send_native",
    abi.Stage.RECEIVE_NATIVE: "receive_native",
    abi.Stage.MASQUERADE: "masquerade",
    abi.Stage.UNMASQUERADE: "unmasquerade",
    abi.Stage.ICMP_ERROR: "icmp_error",
    abi.Stage.SERVICE: "service",
    abi.Stage.SERVICE_ANSWER: "service_answer",
    abi.Stage.RESET: "reset",
}
"""Which program is which stage of the prog array."""

PROGRAMS = (
    "from_endpoint",
    "to_endpoint",
    "deliver_local",
    "encapsulate",
    "from_underlay",
    "from_tunnel",
    "to_tunnel",
    "neighbour",
    "send_native",
    "receive_native",
    "sock_connect4",
    "sock_connect6",
    "sock_sendmsg4",
    "sock_sendmsg6",
    "sock_recvmsg4",
    "sock_recvmsg6",
    "sock_getpeername4",
    "sock_getpeername6",
    "masquerade",
    "unmasquerade",
    "icmp_error",
    "service",
    "service_answer",
    "reset",
)
"""Every program; each is the one function of bpf/<name>.c."""


def placeholders() -> dict[str, int]:
    """Map name -> the number that stands for its file descriptor in the bytecode."""
    return {spec.name: PLACEHOLDER + place for place, spec in enumerate(schema(Sizes()))}


def digest() -> str:
    """Of all that bytecode and Python must agree on beside the C itself."""
    text = f"{abi.HEADERS_SHA256} {placeholders()} {PROGRAMS}"
    return sha256(text.encode()).hexdigest()


def possible_cpus() -> int:
    """How many values a per-CPU map gives for one key.

    Source: the kernel counts possible, not online, CPUs (kernel/bpf/syscall.c).
    """
    with open("/sys/devices/system/cpu/possible") as file:
        last = file.read().strip().rpartition(",")[2].rpartition("-")[2]
    return int(last) + 1
