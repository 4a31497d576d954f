"""What of a remote cluster's words is believed. Pure.

A remote is not trusted (docs: design, "Trust"). What it may say was pinned when it joined:
its id and its PodCIDRs. `Boundary` judges one claim by that and by what we know of our own;
`Admission` keeps the judgement of all its keys up with every put and delete, level-triggered:
an address whose node comes later is believed once the node is, and no longer than it is.
A judgement is None, "believed", or the reason why not, in words for an operator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import attrs

from meshnet.model.addressing import Address, Prefix, contains, overlaps
from meshnet.model.endpoint import IpEntry
from meshnet.model.identity import CLUSTER_LABEL, Identity, ReservedIdentity, belongs_to
from meshnet.model.manifest import SharedManifest
from meshnet.model.node import Node

MAX_VALUE_BYTES = 1 << 20
"""etcd itself takes 1.5 MiB; no honest value comes near 1."""
MAX_KEY_BYTES = 512
"""The longest honest one names a service: 32 + 63 + 253 characters and its prefix."""
MAX_KEYS = 100_000
"""Of one kind of one remote: 1 000 nodes with 100 addresses each."""
MAX_BYTES = 128 << 20
"""Of one remote in all: three times what 100 000 addresses take."""
MAX_MANIFESTS = 256
"""Of one remote: each may concern every endpoint here."""
MAX_MANIFEST_BYTES = 16 << 10
"""Of one of them. A long policy has 4 KiB."""
MAX_NODE_ADDRESSES = 16
MAX_REASON = 300
"""Characters of a reason. Reasons quote the remote, which may say megabytes."""

CLAIMABLE_RESERVED = frozenset(
    {ReservedIdentity.HEALTH, ReservedIdentity.INIT, ReservedIdentity.INGRESS}
)
"""Reserved identities that a remote's addresses may have. Never host, world or remote-node:
they stand for more than an endpoint in policies."""


FORBIDDEN_SOURCES = frozenset({"reserved", "cidr", "fqdn"})
"""Sources of labels that policies give a meaning of their own: a remote's endpoint labelled
`reserved:host` would be taken for our host."""


@attrs.frozen(kw_only=True)
class ServiceClaim:
    """What of a shared service has to be checked."""

    cluster: str
    cluster_id: int
    backends: tuple[Address, ...]


@attrs.frozen
class Unreadable:
    """A key whose value could not be decoded, or is too large to be."""

    reason: str


Claim = Node | IpEntry | Identity | ServiceClaim | SharedManifest | Unreadable


def oversized(key: str, value: bytes, most: int = MAX_VALUE_BYTES) -> Unreadable | None:
    """The refusal of what nobody should even decode."""
    if len(value) > most:
        return Unreadable(f"value of {len(value)} bytes is over the limit of {most}")
    if len(key) > MAX_KEY_BYTES:
        return Unreadable(f"key of {len(key)} characters is over the limit of {MAX_KEY_BYTES}")
    if not key.isprintable():
        return Unreadable("key has characters that cannot be printed")
    return None


def spoken(text: str, limit: int = MAX_REASON) -> str:
    """A remote's words made safe to log and to show: one line, printable, not too long."""
    shown = text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
    if shown.isprintable():
        return shown
    return shown.encode("ascii", "backslashreplace").decode().encode("unicode_escape").decode()


@attrs.frozen(kw_only=True)
class Boundary:
    """What one remote is held to. Made of our own records only."""

    name: str
    cluster_id: int
    pod_cidrs: tuple[Prefix, ...]
    """Pinned when it joined."""
    foreign: Mapping[Prefix, str] = attrs.field(factory=dict)
    """Prefixes of others -> whose they are: our PodCIDRs and service CIDRs, and the PodCIDRs
    of every other remote. They win over the pinned ones, should the two ever meet."""
    taken: Mapping[Address, str] = attrs.field(factory=dict)
    """Addresses of nodes, everybody's -> whose they are: packets from them are theirs."""
    _contested: dict[Prefix, str] = attrs.field(init=False, eq=False, repr=False)
    _lengths: dict[tuple[int, int], dict[int, str]] = attrs.field(init=False, eq=False, repr=False)

    @_contested.default
    def _those_that_meet_the_pinned(self) -> dict[Prefix, str]:
        # None in an honest mesh, so that an address costs nothing however many remotes there are.
        return {
            prefix: whose
            for prefix, whose in self.foreign.items()
            if any(overlaps(prefix, pinned) for pinned in self.pod_cidrs)
        }

    @_lengths.default
    def _by_length(self) -> dict[tuple[int, int], dict[int, str]]:
        """(IP version, bits after the prefix) -> network number -> whose."""
        lengths: dict[tuple[int, int], dict[int, str]] = {}
        for prefix, whose in (*self.foreign.items(), *((p, self.name) for p in self.pod_cidrs)):
            host_bits = prefix.max_prefixlen - prefix.prefixlen
            numbers = lengths.setdefault((prefix.version, host_bits), {})
            numbers.setdefault(int(prefix.network_address) >> host_bits, whose)
        return lengths

    def judge(self, claim: Claim, hosts: Collection[Address]) -> str | None:
        """Why `claim` is not believed. `hosts`: addresses of its nodes that are believed."""
        match claim:
            case Node():
                return _unprintable(claim.name) or self._node(claim)
            case IpEntry(name=name, namespace=namespace, node=node):
                return _unprintable(name, namespace, node) or self._ip(claim, hosts)
            case Identity():
                return _unprintable(str(claim.labels)) or self._identity(claim)
            case ServiceClaim():
                return self._service(claim)
            case SharedManifest(origin=origin):
                return None if origin == self.name else f"is of cluster {origin}, not {self.name}"
            case Unreadable(reason):
                return reason

    def _node(self, node: Node) -> str | None:
        if len(node.addresses) + len(node.gateways) > MAX_NODE_ADDRESSES:
            return f"has more than {MAX_NODE_ADDRESSES} addresses"
        reasons = [
            self._membership(node.cluster, node.cluster_id),
            *(self._underlay_address(address) for address in node.addresses),
            *(self._pod_cidr(prefix) for prefix in node.pod_cidrs),
            *(
                f"{what} {address} is outside the node's PodCIDRs"
                for what, addresses in (
                    ("gateway", node.gateways),
                    ("health address", node.health),
                    ("ingress address", node.ingress),
                )
                for address in addresses
                if not any(contains(prefix, address) for prefix in node.pod_cidrs)
            ),
        ]
        return next(filter(None, reasons), None)

    def _ip(self, entry: IpEntry, hosts: Collection[Address]) -> str | None:
        if reason := self._pod_cidr(entry.prefix):
            return reason
        if entry.identity not in CLAIMABLE_RESERVED and not self._in_range(entry.identity):
            return self._out_of_range(entry.identity)
        if entry.host is None:
            return "has no HostIP, so no node would be asked for it"
        if entry.host not in hosts:
            return f"HostIP {entry.host} is no address of a known node of {self.name}"
        return None

    def _identity(self, identity: Identity) -> str | None:
        if not self._in_range(identity.number):
            return self._out_of_range(identity.number)
        label = identity.labels.get(CLUSTER_LABEL)
        if label != self.name:
            return f"label {CLUSTER_LABEL} is {label!r}, not {self.name!r}"
        for text, value in identity.labels.labels:
            source, _, key = text.partition(":")
            if source in FORBIDDEN_SOURCES:
                return f"label {text} is of source {source!r}, which no endpoint has"
            if key == CLUSTER_LABEL and value != self.name:
                return f"label {text} is {value!r}, not {self.name!r}"
        return None

    def _service(self, service: ServiceClaim) -> str | None:
        outside = (
            f"backend {address} is outside the PodCIDRs of {self.name}"
            for address in service.backends
            if not any(contains(prefix, address) for prefix in self.pod_cidrs)
        )
        return self._membership(service.cluster, service.cluster_id) or next(outside, None)

    def _membership(self, cluster: str, cluster_id: int) -> str | None:
        if cluster != self.name:
            return f"cluster is {cluster!r}, not {self.name!r}"
        if cluster_id != self.cluster_id:
            return f"cluster id is {cluster_id}, not {self.cluster_id}"
        return None

    def _in_range(self, identity: int) -> bool:
        return belongs_to(identity, self.cluster_id)

    def _out_of_range(self, identity: int) -> str:
        return f"identity {identity} is outside the range of cluster id {self.cluster_id}"

    def _pod_cidr(self, prefix: Prefix) -> str | None:
        if not any(_within(prefix, pinned) for pinned in self.pod_cidrs):
            return f"{prefix} is outside the PodCIDRs of {self.name}"
        for other, whose in self._contested.items():
            if overlaps(other, prefix):
                return f"{prefix} overlaps {other} of {whose}"
        return None

    def _underlay_address(self, address: Address) -> str | None:
        if not _can_be_underlay(address):
            return f"node address {address} is not a unicast address of an underlay"
        if (whose := self.taken.get(address, self.name)) != self.name:
            return f"node address {address} belongs to {whose}"
        number = int(address)
        for (version, host_bits), numbers in self._lengths.items():
            owner = numbers.get(number >> host_bits) if version == address.version else None
            if owner is not None:
                return f"node address {address} is inside a PodCIDR or service CIDR of {owner}"
        return None


def _unprintable(*texts: str) -> str | None:
    if all(text.isprintable() for text in texts):
        return None
    return "a name in it has characters that cannot be printed"


def _within(prefix: Prefix, outer: Prefix) -> bool:
    return overlaps(prefix, outer) and prefix.prefixlen >= outer.prefixlen


def _can_be_underlay(address: Address) -> bool:
    return not (
        address.is_loopback
        or address.is_unspecified
        or address.is_multicast
        or address.is_link_local
    )


class Admission:
    """The judgement of every key of one remote, kept current.

    `put`, `delete` and `hold_to` answer the keys to judge again; `reason` judges one.
    Whatever the order of the calls, the judgements are those of the keys that are there.
    """

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary
        self._claims: dict[str, Claim] = {}
        self._by_host: dict[Address, set[str]] = {}
        # Counted, since two nodes may (wrongly) claim one address and one of them go.
        self._hosts: Counter[Address] = Counter()

    @property
    def hosts(self) -> Collection[Address]:
        """Underlay addresses of the remote's believed nodes."""
        return self._hosts.keys()

    @property
    def keys(self) -> Collection[str]:
        return self._claims.keys()

    def claim(self, key: str) -> Claim:
        """What the key says, believed or not. The key must be there."""
        return self._claims[key]

    def put(self, key: str, claim: Claim) -> set[str]:
        """A key was written."""
        dirty = self.delete(key) | {key}
        self._claims[key] = claim
        if isinstance(claim, IpEntry) and claim.host is not None:
            self._by_host.setdefault(claim.host, set()).add(key)
        if isinstance(claim, Node) and self.reason(key) is None:
            dirty |= self._count_hosts(claim, 1)
        return dirty

    def delete(self, key: str) -> set[str]:
        """A key was deleted; one that was not there is not an error."""
        if key not in self._claims:
            return set()
        believed = self.reason(key) is None
        claim = self._claims.pop(key)
        if isinstance(claim, IpEntry) and claim.host is not None:
            self._by_host[claim.host].discard(key)
            if not self._by_host[claim.host]:
                del self._by_host[claim.host]
        if isinstance(claim, Node) and believed:
            return self._count_hosts(claim, -1) | {key}
        return {key}

    def hold_to(self, boundary: Boundary) -> set[str]:
        """Our own records changed. Other nodes coming and going concerns nodes alone."""
        nodes_alone = attrs.evolve(boundary, taken=self._boundary.taken) == self._boundary
        self._boundary = boundary
        nodes = {key: claim for key, claim in self._claims.items() if isinstance(claim, Node)}
        believed = (claim for key, claim in nodes.items() if self.reason(key) is None)
        before = self._hosts
        self._hosts = Counter(address for claim in believed for address in claim.addresses)
        if not nodes_alone:
            return set(self._claims)
        changed = before.keys() ^ self._hosts.keys()
        return set(nodes).union(*(self._by_host.get(address, ()) for address in changed))

    def reason(self, key: str) -> str | None:
        """Why the key is not believed; None when it is. The key must be there."""
        return self._boundary.judge(self._claims[key], self._hosts.keys())

    def _count_hosts(self, node: Node, step: int) -> set[str]:
        """Count a believed node's addresses; answers the addresses' keys it decides about."""
        dirty: set[str] = set()
        for address in node.addresses:
            before = self._hosts[address]
            self._hosts[address] += step
            if self._hosts[address] <= 0:
                del self._hosts[address]
            if not before or not self._hosts.get(address):
                dirty |= self._by_host.get(address, set())
        return dirty
