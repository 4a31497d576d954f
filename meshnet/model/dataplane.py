"""The rows of the dataplane's maps, in the control plane's words.

The dataplane package packs them; nothing above it sees bytes, padding or byte order.
"""

from __future__ import annotations

import enum

import attrs

from meshnet.model.addressing import Address, Prefix
from meshnet.model.policy import Direction
from meshnet.model.service import BackendAddress


class Mode(enum.StrEnum):
    """How packets of endpoints travel to another node."""

    VXLAN = "vxlan"
    GENEVE = "geneve"
    NATIVE = "native"
    """As they are: the underlay routes between the nodes."""


@attrs.frozen(kw_only=True)
class NodeConfig:
    """Constants of this node that programs read (`config` map)."""

    cluster_id: int
    underlay_ifindex: int
    vxlan_ifindex: int
    underlay_ipv4: Address | None
    underlay_ipv6: Address | None
    pod_cidrs: tuple[Prefix, ...]
    """Of this node, one a family at most: all of its endpoints are in there."""
    gateway_ipv4: Address | None
    gateway_ipv6: Address | None
    gateway_mac: str
    """MAC that endpoints see as their gateway: the host side of every endpoint's veth."""
    vxlan_port: int = 8472
    geneve_port: int = 6081
    geneve_ifindex: int = 0
    """The idle vxlan device on Geneve's port; 0: none."""
    accept_native: bool = False
    """Take packets of other nodes' endpoints that come without a tunnel. Otherwise a mesh
    address on the wire is a forged one."""
    masquerade_ports: tuple[int, int] | None = None
    """First and last port that endpoints' packets to the world may leave from, by the node's
    own underlay address. None: they leave as they are, by the host's routing table."""
    unmasqueraded: tuple[Prefix, ...] = ()
    """Destinations in the world that see endpoints' own addresses."""


@attrs.frozen(kw_only=True)
class Modes:
    """By the family of the packet that the endpoint sends, whatever the underlay's is."""

    ipv4: Mode = Mode.VXLAN
    ipv6: Mode = Mode.VXLAN


@attrs.frozen(kw_only=True)
class NodeRow:
    """One row of `nodes`, keyed by the outer address that packets come from or go to."""

    address: Address
    cluster_id: int
    pod_cidrs: tuple[Prefix, ...]
    gateways: tuple[Address, ...] = ()
    """Its own addresses inside its PodCIDRs: the only inner sources allowed with VNI 6."""
    health: tuple[Address, ...] = ()
    """The only inner sources allowed with VNI 4; one a family at most."""
    ingress: tuple[Address, ...] = ()
    """The same, VNI 8."""
    path_mtu: int = 1500
    """Bytes, outer headers included."""
    local: bool = False
    modes: Modes = Modes()
    next_hops: tuple[Address, ...] = ()
    """On the way to it, at most one of a family. None: the kernel's routing table is asked."""
    ifindex: int = 0
    """It is reached by this interface; 0: by the underlay."""


@attrs.frozen(kw_only=True)
class IpcacheRow:
    """One row of `ipcache` (or `ipcache_prefix`, for less than a whole address)."""

    identity: int
    node: Address | None
    """Outer address of the node that has it; None: not tunnelled."""


@attrs.frozen(kw_only=True)
class EndpointRow:
    """One row of `endpoints` and one of `endpoints_by_address` per address."""

    ifindex: int
    """Host side of the veth, in the node's network namespace."""
    endpoint_id: int
    identity: int
    addresses: tuple[Address, ...]
    mac: str
    """Of the interface inside the endpoint."""
    ready: bool = True
    policy_epoch: int = 0
    """Another number whenever its policy changes: flows are judged again."""
    policy_id: int = 0
    """Of the policies that select it; 0: none does."""
    audit: bool = False
    """What policy denies passes, and is reported."""


@attrs.frozen
class PolicyKey:
    """Of a row of `policy`, whose value is a class."""

    policy_id: int
    direction: Direction
    remote: int
    """Identity, or number of a prefix; 0: everybody else."""


@attrs.frozen(kw_only=True)
class ServiceRow:
    """One row of `services`, keyed by its frontend, and its range of `backend_slots`."""

    slots: tuple[BackendAddress, ...]
    """Who takes new clients, as often as its weight says; empty: the client is refused."""
    terminating: frozenset[BackendAddress] = frozenset()
    """Who keeps the clients it has and gets no new ones."""
    affinity_s: int = 0
    """How long a client keeps its backend; 0: every connection is drawn anew."""


@attrs.frozen(kw_only=True)
class MapUsage:
    name: str
    entries: int
    max_entries: int


@attrs.frozen(kw_only=True)
class DropCount:
    reason: str
    direction: str
    packets: int
    bytes: int


@attrs.frozen(kw_only=True)
class DropEvent:
    """One dropped packet, as the ring buffer told it."""

    time_ns: int
    """CLOCK_MONOTONIC."""
    reason: str
    direction: str
    source_identity: int
    destination_identity: int
    source: Address | None
    destination: Address | None
    source_port: int
    destination_port: int
    protocol: int
    length: int
    ifindex: int
    file: str
    line: int
    rule: int = 0
    """Number of the policy rule that decided; 0: none did."""
    verdict: str = "DROPPED"
    """Or AUDIT: it passed, and policy in force would have dropped it."""
