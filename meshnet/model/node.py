"""A node: a host that runs the agent."""

from __future__ import annotations

import attrs

from meshnet.model.addressing import Address, Prefix


@attrs.frozen(kw_only=True)
class Node:
    """What other nodes must know of one node (`cilium/state/nodes/v1/<cluster>/<name>`)."""

    name: str
    cluster: str
    cluster_id: int
    addresses: tuple[Address, ...]
    """Underlay addresses, the preferred one first. Tunnelled packets come from these."""
    gateways: tuple[Address, ...] = ()
    """The node's own addresses inside its PodCIDRs (Cilium: CiliumInternalIP)."""
    health: tuple[Address, ...] = ()
    """What its health endpoint answers on, one a family at most. Cilium's nodes have one."""
    ingress: tuple[Address, ...] = ()
    """The same of its ingress proxy."""
    pod_cidrs: tuple[Prefix, ...] = ()
    boot_id: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return (self.cluster, self.name)

    def outer_address(self, version: int) -> Address | None:
        """The first underlay address of that IP version."""
        return next((a for a in self.addresses if a.version == version), None)
