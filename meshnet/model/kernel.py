"""Kernel objects as we wish them or find them."""

from __future__ import annotations

import attrs

from meshnet.model.addressing import Address, Prefix

VXLAN_IFNAME = "meshnet-vxlan"
GENEVE_IFNAME = "meshnet-geneve"
"""A vxlan device on Geneve's port: the kernel merges packets of a port that has one."""
ENDPOINT_IFNAME_PREFIX = "mesh"
"""Then the endpoint's id: the host side of its veth."""
NETNS_PREFIX = "meshnet-"
"""Of network namespaces that we made, in /run/netns."""
ENDPOINT_CGROUP = "meshnet"
"""Below the root of cgroup v2: every command that `run` and `exec` put into an endpoint."""


@attrs.frozen(kw_only=True)
class Underlay:
    """The interface between nodes."""

    ifname: str
    ifindex: int
    mac: str
    mtu: int
    addresses: tuple[Address, ...]
    """Global addresses, IPv4 first."""


@attrs.frozen(kw_only=True)
class Route:
    """A host route that we own (protocol RTPROTO_MESHNET)."""

    destination: Prefix
    ifindex: int
    source: Address | None = None
    via: Address | None = None
    mtu: int | None = None


@attrs.frozen(kw_only=True)
class Hop:
    """Who is next on the way to an address."""

    address: Address
    """The router's, or the address itself where it is on the link."""
    ifindex: int
    on_link: bool
    mac: str | None = None
    """As the neighbour table has it; None: nobody has asked lately."""


@attrs.frozen(kw_only=True)
class VethSpec:
    """The veth of one endpoint, both ends configured."""

    host_ifname: str
    host_mac: str
    netns: str
    """Path of the endpoint's network namespace."""
    ifname: str
    addresses: tuple[Address, ...]
    """Each /32 or /128 on the inner end."""
    gateways: tuple[Address, ...]
    """Default routes, one a family, with permanent neighbours to `host_mac`."""
    mtu: int
    """Of the device."""
    route_mtu: int
    """Of the default routes: what fits after encapsulation, or what IPv6 needs at least."""


@attrs.frozen(kw_only=True)
class Veth:
    """A veth as the kernel made it."""

    host_ifname: str
    ifindex: int
    """Host side."""
    mac: str
    """Inner side."""
