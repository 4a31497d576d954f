"""A cluster: hosts that share one etcd, and what they all agree on."""

from __future__ import annotations

import enum
import hashlib
from itertools import combinations

import attrs

from meshnet.errors import InvalidPrefix
from meshnet.model import names
from meshnet.model.addressing import Prefix, overlaps, parse_prefix


class Routing(enum.StrEnum):
    TUNNEL = "tunnel"
    AUTO = "auto"
    NATIVE = "native"


class TunnelProtocol(enum.StrEnum):
    VXLAN = "vxlan"
    GENEVE = "geneve"


VXLAN_PORT = 8472
GENEVE_PORT = 6081
GATEWAY_PORT = 4243
ENROLMENT_PORT = 4244
ETCD_PORT = 2379


def derived_cluster_id(name: str) -> int:
    """A stable id in 1..255 for a name, for operators who do not care for one."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 255 + 1


def default_pod_cidrs(cluster_id: int) -> tuple[Prefix, ...]:
    return (
        parse_prefix(f"10.{cluster_id}.0.0/16"),
        parse_prefix(f"fd00:10:{cluster_id:x}::/48"),
    )


def default_service_cidrs() -> tuple[Prefix, ...]:
    return (parse_prefix("100.64.0.0/16"), parse_prefix("fd00:100:64::/112"))


@attrs.frozen(kw_only=True)
class Cluster:
    """What `cluster init` decided; kept in `meshnet/v1/config` for every node to read."""

    name: str = attrs.field(converter=names.cluster_name)
    id: int = attrs.field(converter=names.cluster_id)
    pod_cidrs: tuple[Prefix, ...]
    service_cidrs: tuple[Prefix, ...] = attrs.field(factory=default_service_cidrs)
    node_prefix_v4: int = 22
    """Prefix length of one node's IPv4 PodCIDR."""
    node_prefix_v6: int = 112
    routing: Routing = Routing.TUNNEL
    tunnel: TunnelProtocol = TunnelProtocol.VXLAN
    masquerade: bool = True
    """Endpoints reach the world by their node's address."""
    non_masquerade_cidrs: tuple[Prefix, ...] = ()
    """Parts of the world that see endpoints' own addresses, since they have a way back."""
    policy_default_local: bool = True
    """Policy selectors that name no cluster mean this one alone, as Cilium's since 1.19."""
    policies_from: tuple[str, ...] = ()
    """Other clusters whose policies for the whole mesh hold here too: they may close, and
    never open. Nobody's by default, since a remote is not trusted."""
    certificate_lifetime_s: int = 7 * 86400
    """Of certificates signed from now on; they are renewed at two thirds of it."""

    def __attrs_post_init__(self) -> None:
        versions = [prefix.version for prefix in self.pod_cidrs]
        if 4 not in versions:
            raise InvalidPrefix("an IPv4 PodCIDR is needed beside IPv6: add --pod-cidr 10.x.0.0/16")
        for prefix in self.pod_cidrs:
            node = self.node_prefix(prefix)
            if node < prefix.prefixlen:
                raise InvalidPrefix(
                    f"PodCIDR {prefix} is too small: a node takes a /{node}, so give at least "
                    f"/{node} or a longer --node-prefix-v{prefix.version}"
                )
            longest = 29 if prefix.version == 4 else 120
            if node > longest:
                raise InvalidPrefix(
                    f"--node-prefix-v{prefix.version} {node} is too small for a node: "
                    f"/{longest} at most"
                )
        for one, other in combinations((*self.pod_cidrs, *self.service_cidrs), 2):
            if overlaps(one, other):
                raise InvalidPrefix(f"{one} overlaps {other}: every CIDR of a cluster is its own")

    def node_prefix(self, prefix: Prefix) -> int:
        """Length of the block that one node gets out of `prefix`."""
        return self.node_prefix_v4 if prefix.version == 4 else self.node_prefix_v6


@attrs.frozen(kw_only=True)
class ClusterConfig:
    """How a cluster introduces itself to others: `cilium/cluster-config/<cluster>`."""

    id: int
    synced_canaries: bool = True
    """It says when a prefix was written in full; a reader waits for that."""
    cached: bool = False
    """This is a mirror's copy: its state lies under `cilium/cache/`."""
    max_connected_clusters: int = 255
