"""rtnetlink by pyroute2. The only package that imports it.

Requests block for 0.3 ms each, an endpoint's veth needs about thirty: so each method does
its work in a thread (netlink/namespace.py), and the event loop never waits.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from pathlib import Path
from socket import if_nameindex
from typing import TypeVar

from pyroute2.iproute.linux import IPRoute

from meshnet.errors import NetlinkRefused
from meshnet.model.addressing import Address
from meshnet.model.kernel import Hop, Route, Underlay, Veth, VethSpec
from meshnet.netlink import link, namespace, route, underlay, veth, watch

T = TypeVar("T")

TUNNEL_KINDS = {"vxlan", "geneve", "gre", "ipip", "wireguard"}


class Rtnl:
    """The port `Netlink` (netlink/api.py) to a real kernel."""

    def __init__(self, netns: str | None = None) -> None:
        """
        Args:
            netns: path of the network namespace that is this node's; None: where we are.
        """
        self._netns = netns

    async def _ask(self, request: Callable[[IPRoute], T]) -> T:
        """Run one blocking request with a netlink socket of the node's namespace."""

        def with_socket() -> T:
            with namespace.requests() as socket:
                return request(socket)

        return await namespace.run_in(self._netns, with_socket)

    async def find_underlay(self, wanted: str | None) -> Underlay:
        return underlay.choose(await self._ask(_candidates), wanted)

    async def underlay_candidates(self) -> tuple[underlay.Candidate, ...]:
        return tuple(await self._ask(_candidates))

    async def underlay_by_name(self, ifname: str) -> Underlay:
        return underlay.by_name(await self._ask(_candidates), ifname)

    async def ensure_vxlan(
        self, ifname: str, *, port: int, mtu: int, addresses: tuple[Address, ...]
    ) -> tuple[int, str]:
        def ensure(socket: IPRoute) -> tuple[int, str]:
            device = _vxlan(socket, ifname, port)
            # without ARP the kernel hands every packet to the device at once: who gets it
            # is for `to_tunnel` to say, which knows nodes and not their MAC addresses
            link.set_link(socket, device.ifindex, mtu=mtu, arp=False)
            namespace.write_sysctl(f"ipv6/conf/{ifname}/addr_gen_mode", veth.ADDR_GEN_MODE_NONE)
            link.set_addresses(socket, device.ifindex, addresses)
            return device.ifindex, device.mac

        return await self._ask(ensure)

    async def set_up(self, ifindex: int) -> None:
        await self._ask(lambda socket: link.set_link(socket, ifindex, state="up"))

    async def create_veth(self, spec: VethSpec) -> Veth:
        host = await namespace.run_in(self._netns, lambda: veth.ensure_pair(spec))
        if host.peer is None:
            raise NetlinkRefused(f"create veth {spec.host_ifname}", errno.ENODEV, "no other end")
        inner_index = host.peer
        try:
            mac = await namespace.run_in(
                spec.netns, lambda: veth.configure_inner(spec, inner_index)
            )
            await namespace.run_in(
                self._netns, lambda: veth.configure_host(spec, host.ifindex, mac)
            )
        except BaseException:
            await self.delete_link(spec.host_ifname)
            raise
        return Veth(host_ifname=spec.host_ifname, ifindex=host.ifindex, mac=mac)

    async def list_veths(self, prefix: str) -> dict[str, int]:
        # One at a time: a dump of a thousand links costs 40 MB while it is decoded.
        def ask(socket: IPRoute) -> dict[str, int]:
            names = (name for _, name in if_nameindex() if name.startswith(prefix))
            found = (link.find_link(socket, name) for name in names)
            return {veth.ifname: veth.ifindex for veth in found if veth and veth.kind == "veth"}

        return await self._ask(ask)

    async def delete_link(self, ifname: str) -> None:
        await self._ask(lambda socket: link.delete_link(socket, ifname))

    async def list_routes(self) -> list[Route]:
        return await self._ask(route.list_routes)

    async def hops_to(
        self, addresses: Collection[Address], *, macs: bool = False
    ) -> dict[Address, Hop]:
        def ask(socket: IPRoute) -> dict[Address, Hop]:
            found = ((address, route.find_hop(socket, address, mac=macs)) for address in addresses)
            return {address: hop for address, hop in found if hop is not None}

        return await self._ask(ask) if addresses else {}

    async def watch(self, changed: Callable[[], None]) -> None:
        with await namespace.run_in(self._netns, watch.open_socket) as socket:
            await watch.follow(socket, changed)

    async def replace_route(self, wanted: Route) -> None:
        await self._ask(lambda socket: route.replace_route(socket, wanted))

    async def delete_route(self, unwanted: Route) -> None:
        await self._ask(lambda socket: route.delete_route(socket, unwanted))

    async def enable_forwarding(self) -> None:
        await namespace.run_in(self._netns, _enable_forwarding)

    async def reserved_ports(self) -> str:
        return await namespace.run_in(
            self._netns, lambda: namespace.read_sysctl("ipv4/ip_local_reserved_ports")
        )

    async def set_reserved_ports(self, ports: str) -> None:
        # an empty write is no write to the kernel, an empty line is
        await namespace.run_in(
            self._netns,
            lambda: namespace.write_sysctl("ipv4/ip_local_reserved_ports", f"{ports}\n"),
        )

    async def create_netns(self, name: str) -> str:
        path = namespace.RUN_DIR / name
        if not path.is_mount():
            await namespace.run_apart(lambda: namespace.create(path))
        return str(path)

    async def delete_netns(self, name: str) -> None:
        await namespace.run_in(None, lambda: namespace.delete(namespace.RUN_DIR / name))

    async def close(self) -> None:
        """Nothing stays open between two calls."""


def _candidates(socket: IPRoute) -> list[underlay.Candidate]:
    addresses = link.list_addresses(socket)
    default = route.default_route_links(socket)
    return [
        underlay.Candidate(
            underlay=Underlay(
                ifname=found.ifname,
                ifindex=found.ifindex,
                mac=found.mac,
                mtu=found.mtu,
                addresses=tuple(addresses[found.ifindex]),
            ),
            default_route=found.ifindex in default,
        )
        for found in link.list_links(socket)
        if found.ifindex in addresses
        and not found.loopback
        and found.kind not in TUNNEL_KINDS
        and not underlay.is_own(found.ifname)
    ]


def _vxlan(socket: IPRoute, ifname: str, port: int) -> link.Link:
    """The device in its one right shape; another of that name goes.

    Zero UDP checksums over IPv6 are sent and accepted, as BPF sends them; without a socket
    that accepts them the kernel does not merge such packets (GRO).
    """
    shape = {
        "vxlan_collect_metadata": 1,
        "vxlan_port": port,
        "vxlan_learning": 0,
        "vxlan_udp_zero_csum6_tx": 1,
        "vxlan_udp_zero_csum6_rx": 1,
    }
    found = link.find_link(socket, ifname)
    if found is not None and not (
        found.kind == "vxlan"
        and all(found.detail.get(f"IFLA_{name.upper()}") == value for name, value in shape.items())
    ):
        link.delete_link(socket, ifname)
        found = None
    if found is None:
        with namespace.refusing(f"create vxlan {ifname} on port {port}"):
            socket.link("add", ifname=ifname, kind="vxlan", **shape)
    return link.get_link(socket, ifname)


def _enable_forwarding() -> None:
    namespace.write_sysctl("ipv4/ip_forward", 1)
    namespace.write_sysctl("ipv4/conf/all/rp_filter", 0)
    for interface in Path("/proc/sys/net/ipv4/conf").iterdir():
        # the stricter of `all` and the interface's own counts; loose stays loose
        if namespace.read_sysctl(f"ipv4/conf/{interface.name}/rp_filter") == "1":
            namespace.write_sysctl(f"ipv4/conf/{interface.name}/rp_filter", 2)
    for interface in Path("/proc/sys/net/ipv6/conf").iterdir():
        # a router ignores router advertisements unless told 2, and would lose its own uplink
        if interface.name not in ("all", "default", "lo"):
            setting = f"ipv6/conf/{interface.name}/accept_ra"
            if namespace.read_sysctl(setting) == "1":
                namespace.write_sysctl(setting, 2)
    namespace.write_sysctl("ipv6/conf/all/forwarding", 1)
