"""The port to the kernel's links, addresses, routes and neighbours.

Two implementations pass one contract suite (tests/contract/test_netlink.py): `rtnl.Rtnl`
and, in process, `memory.MemoryNetlink`. Refusals are NetlinkRefused; deleting what is
absent is not an error; every `ensure_*` and `create_*` may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from meshnet.model.addressing import Address
from meshnet.model.kernel import Hop, Route, Underlay, Veth, VethSpec
from meshnet.netlink.underlay import Candidate

RTPROTO_MESHNET = 0x6D
"""The mark on every route that is ours (`ip route` shows it as `proto 109`)."""


class Netlink(Protocol):
    async def find_underlay(self, wanted: str | None) -> Underlay:
        """The interface named, or the one with an address in the CIDR named, or the one
        of the default route, or the only one with a global address. Raises ConfigError
        that lists the candidates when there is none or more than one."""

    async def underlay_candidates(self) -> tuple[Candidate, ...]:
        """Every interface that could be the underlay: up, with a global address, and none
        of loopback, tunnels, our own devices or the host side of an endpoint."""

    async def underlay_by_name(self, ifname: str) -> Underlay: ...

    async def ensure_vxlan(
        self, ifname: str, *, port: int, mtu: int, addresses: tuple[Address, ...]
    ) -> tuple[int, str]:
        """The metadata-mode vxlan device (external, nolearning, udp6 zero checksums
        accepted), not yet up; the given host addresses (/32, /128) are on it. It has no ARP:
        a packet routed to it goes out at once, to its own MAC. Returns (ifindex, MAC). A
        device of that name and another shape is replaced."""

    async def set_up(self, ifindex: int) -> None: ...

    async def create_veth(self, spec: VethSpec) -> Veth:
        """Both ends, addressed and up, with permanent neighbours on both sides, host
        routes (RTPROTO_MESHNET) to its addresses, and IPv6 DAD off. Idempotent: an
        existing one is made to match. All or nothing. Raises NotFound or UsageError where
        `spec.netns` is no network namespace, AlreadyExists where `spec.ifname` is taken
        in it."""

    async def list_veths(self, prefix: str) -> dict[str, int]:
        """Host-side names starting with `prefix` -> ifindex."""

    async def delete_link(self, ifname: str) -> None: ...

    async def list_routes(self) -> list[Route]:
        """Routes in the main table with our protocol number, those of the veths too."""

    async def hops_to(
        self, addresses: Collection[Address], *, macs: bool = False
    ) -> dict[Address, Hop]:
        """Who is next on the way to each, by the routing table; those that there is no way to
        are left out, and the node's own. With `macs`, the kernel is told to look for a MAC
        that it does not know: a later call will have it."""

    async def watch(self, changed: Callable[[], None]) -> None:
        """Never returns. Calls `changed` when links, addresses or routes may be other ones
        than before; not for our routes, nor for the host sides of endpoints."""

    async def replace_route(self, route: Route) -> None: ...

    async def delete_route(self, route: Route) -> None: ...

    async def enable_forwarding(self) -> None:
        """ip_forward and IPv6 forwarding on, strict rp_filter off, for this namespace."""

    async def reserved_ports(self) -> str:
        """net.ipv4.ip_local_reserved_ports: ports that no socket gets by chance."""

    async def set_reserved_ports(self, ports: str) -> None:
        """The whole list, such as `4244,40000-60999`; empty: none."""

    async def create_netns(self, name: str) -> str:
        """A named network namespace with `lo` up; returns its path (/run/netns/<name>)."""

    async def delete_netns(self, name: str) -> None: ...

    async def close(self) -> None: ...
