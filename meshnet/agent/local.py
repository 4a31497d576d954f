"""What this node is, settled once at start: everything else is built from it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import attrs

from meshnet.model.addressing import Address, PodCIDR, usable_mtu
from meshnet.model.cluster import Cluster
from meshnet.model.kernel import Underlay
from meshnet.model.node import Node

GATEWAY_MAC = "02:6d:65:73:68:01"
"""Locally administered; the host side of every endpoint's veth. One is enough: each veth
is a segment of its own."""

OVERHEAD_V4 = 50
"""Bytes VXLAN adds over IPv4: outer IP 20, UDP 8, VXLAN 8, inner Ethernet 14."""
OVERHEAD_V6 = 70


@attrs.frozen(kw_only=True)
class LocalNode:
    name: str
    cluster: Cluster
    underlay: Underlay
    pod_cidrs: tuple[PodCIDR, ...]
    boot_id: str

    def pod_cidr(self, version: int) -> PodCIDR | None:
        return next((cidr for cidr in self.pod_cidrs if cidr.network.version == version), None)

    @property
    def gateways(self) -> tuple[Address, ...]:
        return tuple(cidr.gateway for cidr in self.pod_cidrs)

    def gateway(self, version: int) -> Address | None:
        cidr = self.pod_cidr(version)
        return cidr.gateway if cidr else None

    def underlay_address(self, version: int) -> Address | None:
        return next((a for a in self.underlay.addresses if a.version == version), None)

    @property
    def endpoint_mtu(self) -> int:
        """What an endpoint may send so that it still fits after encapsulation."""
        over_v4 = self.underlay_address(4) is not None
        return self.underlay.mtu - (OVERHEAD_V4 if over_v4 else OVERHEAD_V6)

    def device_mtu(self, wanted: int) -> int:
        """Of a device that bears addresses of each family that our endpoints have. Where it
        is more than the path takes, routes and the dataplane say so packet by packet."""
        return max(usable_mtu(wanted, cidr.network.version) for cidr in self.pod_cidrs)

    def as_node(self) -> Node:
        """What the others are told of us."""
        return Node(
            name=self.name,
            cluster=self.cluster.name,
            cluster_id=self.cluster.id,
            addresses=self.underlay.addresses,
            gateways=self.gateways,
            pod_cidrs=tuple(cidr.network for cidr in self.pod_cidrs),
            boot_id=self.boot_id,
        )


def ipv4(address: Address | None) -> IPv4Address | None:
    return address if isinstance(address, IPv4Address) else None


def ipv6(address: Address | None) -> IPv6Address | None:
    return address if isinstance(address, IPv6Address) else None
