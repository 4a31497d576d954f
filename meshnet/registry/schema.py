"""Every key in etcd, and nothing about values (those are codec's).

`cilium/...` is Cilium Cluster Mesh's layout, key for key, so that another cluster may
read it whether it runs meshnet or Cilium. `meshnet/v1/...` is ours, read only inside
the cluster. A name that ends in `S` or a function in the plural is a prefix and ends
with a slash; all others are whole keys. docs/reference/etcd-schema.md says who writes
what and under which lease.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from meshnet.model.addressing import Address, Prefix
from meshnet.model.identity import LabelSet

# --- what other clusters read: Cilium's layout ------------------------------------------

HEARTBEAT = "cilium/.heartbeat"
CLUSTER_CONFIGS = "cilium/cluster-config/"
SYNCED = "cilium/synced/"
NODES = "cilium/state/nodes/v1/"
IPS = "cilium/state/ip/v1/default/"
IDENTITIES = "cilium/state/identities/v1/id/"
IDENTITY_VALUES = "cilium/state/identities/v1/value/"
SERVICES = "cilium/state/services/v1/"

CANARIED = (
    "cilium/state/nodes/v1",
    "cilium/state/ip/v1",
    "cilium/state/identities/v1",
    "cilium/state/services/v1",
)
"""The prefixes whose first full write a canary announces."""


def cluster_config(cluster: str) -> str:
    return f"{CLUSTER_CONFIGS}{cluster}"


def canaries(cluster: str) -> str:
    return f"{SYNCED}{cluster}/"


def synced(cluster: str, prefix: str) -> str:
    """The canary of one of CANARIED, or of CACHE_CANARIED for a mirrored cluster."""
    return f"{SYNCED}{cluster}/{prefix}"


def nodes(cluster: str) -> str:
    return f"{NODES}{cluster}/"


def node(cluster: str, node: str) -> str:
    return f"{NODES}{cluster}/{node}"


def ip(address: Address | Prefix) -> str:
    """A host address is written without its length, a shorter prefix with it."""
    return f"{IPS}{ip_text(address)}"


def identity(number: int) -> str:
    return f"{IDENTITIES}{number}"


def identity_value(labels: LabelSet, node: str) -> str:
    """One node's use of an identity: it keeps the identity from garbage collection."""
    return f"{IDENTITY_VALUES}{labels}/{node}"


def services(cluster: str) -> str:
    return f"{SERVICES}{cluster}/"


def service(cluster: str, namespace: str, name: str) -> str:
    return f"{SERVICES}{cluster}/{namespace}/{name}"


# --- mirrors of remote clusters: kvstoremesh's layout, every kind under its cluster ------

CACHES = "cilium/cache/"
CACHE_NODES = "cilium/cache/nodes/v1/"
CACHE_IPS = "cilium/cache/ip/v1/"
CACHE_IDENTITIES = "cilium/cache/identities/v1/"
CACHE_SERVICES = "cilium/cache/services/v1/"

CACHE_CANARIED = (
    "cilium/cache/nodes/v1",
    "cilium/cache/ip/v1",
    "cilium/cache/identities/v1",
    "cilium/cache/services/v1",
)


def cache_nodes(cluster: str) -> str:
    return f"{CACHE_NODES}{cluster}/"


def cache_ips(cluster: str) -> str:
    return f"{CACHE_IPS}{cluster}/"


def cache_identities(cluster: str) -> str:
    return f"{CACHE_IDENTITIES}{cluster}/id/"


def cache_services(cluster: str) -> str:
    return f"{CACHE_SERVICES}{cluster}/"


# --- what meshnet clusters tell each other beside Cilium's layout ---------------------------

SHARED_MANIFESTS = "meshnet/v1/shared/manifests/"
CACHE_MANIFESTS = "meshnet/v1/cache/manifests/"


def shared_manifests(cluster: str) -> str:
    """Manifests that a cluster applied for the whole mesh, where others may read them."""
    return f"{SHARED_MANIFESTS}{cluster}/"


def shared_manifest(cluster: str, kind: str, namespace: str, name: str) -> str:
    """As `manifest`."""
    return f"{SHARED_MANIFESTS}{cluster}/{kind}/{namespace}/{name}"


def cache_manifests(cluster: str) -> str:
    """The mirror of another cluster's."""
    return f"{CACHE_MANIFESTS}{cluster}/"


# --- ours, never exported -----------------------------------------------------------------

OURS = "meshnet/v1/"
CONFIG = "meshnet/v1/config"
POD_CIDR_ALLOCATIONS = "meshnet/v1/alloc/pod-cidrs/"
IDENTITY_ALLOCATIONS = "meshnet/v1/alloc/identities/"
RETIRED_IDENTITIES = "meshnet/v1/alloc/retired-identities/"
SERVICE_ADDRESSES = "meshnet/v1/alloc/service-addresses/"
HEALTH = "meshnet/v1/health/"
MANIFESTS = "meshnet/v1/manifests/"
ENDPOINTS = "meshnet/v1/endpoints/"
REMOTES = "meshnet/v1/remotes/"
TOKENS = "meshnet/v1/tokens/"
REVOKED = "meshnet/v1/revoked/"
ISSUED = "meshnet/v1/issued/"
TRUST = "meshnet/v1/trust/state"
TRUST_NODES = "meshnet/v1/trust/nodes/"
TRUST_TOLD = "meshnet/v1/trust/told/"
CRLS = "meshnet/v1/trust/crl/"
LEADER = "meshnet/v1/leader/mesh"
MESH_STATUS = "meshnet/v1/mesh-status/"
WAITS = "meshnet/v1/waits/"
ACKS = "meshnet/v1/acks/"


def pod_cidr_allocation(prefix: Prefix) -> str:
    return f"{POD_CIDR_ALLOCATIONS}{prefix}"


def identity_allocation(labels: LabelSet) -> str:
    return f"{IDENTITY_ALLOCATIONS}{labels}"


def retired_identity(number: int | str) -> str:
    return f"{RETIRED_IDENTITIES}{number}"


def service_address(address: Address) -> str:
    return f"{SERVICE_ADDRESSES}{address}"


def health(node: str) -> str:
    """Which backends on a node fail their health checks."""
    return f"{HEALTH}{node}"


def manifest(kind: str, namespace: str, name: str) -> str:
    """`kind` in lower case; `namespace` is empty for a kind that is of none:
    `meshnet/v1/manifests/namespace//shop`."""
    return f"{MANIFESTS}{kind}/{namespace}/{name}"


def endpoints(node: str) -> str:
    return f"{ENDPOINTS}{node}/"


def endpoint(node: str, endpoint: int) -> str:
    return f"{ENDPOINTS}{node}/{endpoint}"


def remote(cluster: str) -> str:
    return f"{REMOTES}{cluster}"


def mesh_status(cluster: str) -> str:
    """How the leader's mirror of that remote is doing; under the leader's lease."""
    return f"{MESH_STATUS}{cluster}"


def wait(number: str) -> str:
    """Somebody waits until what was applied is in effect; under a lease of its own."""
    return f"{WAITS}{number}"


def ack(node: str) -> str:
    """How far a node's dataplane has come; under the node's lease, written on a wait."""
    return f"{ACKS}{node}"


def token(sha256: str) -> str:
    """The hash alone: who reads etcd cannot use the token."""
    return f"{TOKENS}{sha256}"


def revoked(node: str) -> str:
    """When the node was thrown out: what was issued to it before is renewed no more."""
    return f"{REVOKED}{node}"


def issued(node: str, serial: str) -> str:
    """A certificate that a signer gave that node: what a revocation must name. In hex."""
    return f"{ISSUED}{node}/{serial}"


def trust_node(node: str) -> str:
    """How far the node has followed a change of CAs; under its lease."""
    return f"{TRUST_NODES}{node}"


def trust_told(cluster: str) -> str:
    """That another cluster has heard of our CAs."""
    return f"{TRUST_TOLD}{cluster}"


def crl(authority: str) -> str:
    """The list of a CA's revoked certificates, as signers keep it."""
    return f"{CRLS}{authority}"


# --- reading keys ----------------------------------------------------------------------------


def ip_text(address: Address | Prefix) -> str:
    """An address or prefix as it stands in a key."""
    if isinstance(address, IPv4Network | IPv6Network) and _is_host(address):
        return str(address.network_address)
    return str(address)


def _is_host(prefix: Prefix) -> bool:
    return prefix.prefixlen == prefix.max_prefixlen


def ip_of(key: str) -> str:
    """The address or prefix in a key of IPS or CACHE_IPS: `10.2.0.5`, `10.2.0.16/28`."""
    return key.split("/", 5)[5]


def cluster_and_node_of(key: str) -> tuple[str, str]:
    """The owner named by a key of NODES or CACHE_NODES."""
    _, cluster, node = key.rsplit("/", 2)
    return cluster, node


def last_of(key: str) -> str:
    """The last part: a number, a cluster, a hash."""
    return key.rpartition("/")[2]
