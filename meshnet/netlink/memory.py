"""A kernel's links and routes in a dictionary, for tests that need no root.

It understands what it is given as the kernel would: a route needs a link that is up and
goes away with it, a veth dies with either end's namespace, a name is taken once.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from collections.abc import Callable, Collection, Iterable

import attrs

from meshnet.errors import AlreadyExists, NetlinkRefused, NotFound
from meshnet.model.addressing import IPV6_MTU_LEAST, Address, Prefix, contains, host_prefix
from meshnet.model.kernel import Hop, Route, Underlay, Veth, VethSpec
from meshnet.netlink import underlay

RUN_DIR = "/run/netns"


@attrs.define(kw_only=True)
class MemoryLink:
    ifname: str
    ifindex: int
    mac: str
    kind: str = ""
    mtu: int = 1500
    up: bool = False
    addresses: tuple[Address, ...] = ()
    default_route: bool = False
    port: int | None = None
    """Of a vxlan device."""
    networks: tuple[Prefix, ...] = ()
    """On the link."""
    gateway: Address | None = None
    """Of the default route."""
    veth: VethSpec | None = None
    inner_mac: str = ""


class MemoryNetlink:
    """The port `Netlink` (netlink/api.py), in process. One network namespace: the node's."""

    def __init__(self) -> None:
        self.links: dict[str, MemoryLink] = {}
        self.routes: dict[Prefix, Route] = {}
        self.netns: set[str] = set()
        """Paths of the namespaces that exist beside the node's."""
        self.forwarding = False
        self.reserved = ""
        self.neighbours: dict[Address, str] = {}
        """MACs that the kernel knows."""
        self.watchers: list[Callable[[], None]] = []
        self._ifindex = itertools.count(1)

    def add_interface(
        self,
        ifname: str,
        addresses: Iterable[Address],
        *,
        networks: Iterable[Prefix] = (),
        gateway: Address | None = None,
    ) -> int:
        """What a machine has before meshnet comes: an interface that is up."""
        link = self._add(
            ifname,
            addresses=tuple(addresses),
            networks=tuple(networks),
            gateway=gateway,
            default_route=gateway is not None,
            up=True,
        )
        for changed in self.watchers:
            changed()
        return link.ifindex

    def _add(self, ifname: str, **fields: object) -> MemoryLink:
        index = next(self._ifindex)
        mac = f"02:00:00:00:{index >> 8:02x}:{index & 255:02x}"
        link = MemoryLink(ifname=ifname, ifindex=index, **{"mac": mac, **fields})  # type: ignore[arg-type]
        self.links[ifname] = link
        return link

    def _by_index(self, ifindex: int, request: str) -> MemoryLink:
        for link in self.links.values():
            if link.ifindex == ifindex:
                return link
        raise NetlinkRefused(request, errno.ENODEV, os.strerror(errno.ENODEV))

    def _candidates(self) -> list[underlay.Candidate]:
        return [
            underlay.Candidate(
                underlay=Underlay(
                    ifname=link.ifname,
                    ifindex=link.ifindex,
                    mac=link.mac,
                    mtu=link.mtu,
                    addresses=tuple(sorted(link.addresses, key=lambda a: a.version)),
                ),
                default_route=link.default_route,
            )
            for link in self.links.values()
            if link.addresses and link.kind != "vxlan" and not underlay.is_own(link.ifname)
        ]

    async def find_underlay(self, wanted: str | None) -> Underlay:
        return underlay.choose(self._candidates(), wanted)

    async def underlay_candidates(self) -> tuple[underlay.Candidate, ...]:
        return tuple(self._candidates())

    async def underlay_by_name(self, ifname: str) -> Underlay:
        return underlay.by_name(self._candidates(), ifname)

    async def ensure_vxlan(
        self, ifname: str, *, port: int, mtu: int, addresses: tuple[Address, ...]
    ) -> tuple[int, str]:
        if mtu < IPV6_MTU_LEAST and any(address.version == 6 for address in addresses):
            request = f"sysctl net/ipv6/conf/{ifname}/addr_gen_mode"
            raise NetlinkRefused(request, errno.ENOENT, os.strerror(errno.ENOENT))
        link = self.links.get(ifname)
        if link is None or (link.kind, link.port) != ("vxlan", port):
            await self.delete_link(ifname)
            link = self._add(ifname, kind="vxlan", port=port)
        link.mtu, link.addresses = mtu, addresses
        return link.ifindex, link.mac

    async def set_up(self, ifindex: int) -> None:
        self._by_index(ifindex, f"change link {ifindex} (state)").up = True

    async def create_veth(self, spec: VethSpec) -> Veth:
        if spec.netns not in self.netns:
            raise NotFound(f"network namespace {spec.netns} does not exist")
        link = self.links.get(spec.host_ifname)
        if link is not None and (link.veth is None or link.veth.netns != spec.netns):
            await self.delete_link(spec.host_ifname)
            link = None
        taken = {
            (v.netns, v.ifname) for x in self.links.values() if x is not link and (v := x.veth)
        }
        if (spec.netns, spec.ifname) in taken:
            raise AlreadyExists(
                f"interface {spec.ifname!r} exists in {spec.netns}: choose another --ifname"
            )
        if link is None:
            link = self._add(spec.host_ifname, kind="veth")
            link.inner_mac = link.mac.replace("02:", "06:", 1)
        link.veth, link.mac, link.mtu, link.up = spec, spec.host_mac, spec.mtu, True
        for address in spec.addresses:
            await self.replace_route(Route(destination=host_prefix(address), ifindex=link.ifindex))
        return Veth(host_ifname=link.ifname, ifindex=link.ifindex, mac=link.inner_mac)

    async def list_veths(self, prefix: str) -> dict[str, int]:
        return {
            link.ifname: link.ifindex
            for link in self.links.values()
            if link.kind == "veth" and link.ifname.startswith(prefix)
        }

    async def delete_link(self, ifname: str) -> None:
        link = self.links.pop(ifname, None)
        if link is not None:
            self.routes = {
                to: route for to, route in self.routes.items() if route.ifindex != link.ifindex
            }

    async def list_routes(self) -> list[Route]:
        return list(self.routes.values())

    async def hops_to(
        self, addresses: Collection[Address], *, macs: bool = False
    ) -> dict[Address, Hop]:
        found = {}
        for address in addresses:
            hop = self._hop_to(address)
            if hop is not None:
                found[address] = hop if macs else attrs.evolve(hop, mac=None)
        return found

    def _hop_to(self, address: Address) -> Hop | None:
        links = [link for link in self.links.values() if link.up]
        if any(address in link.addresses for link in links):
            return None
        for link in links:
            if any(contains(network, address) for network in link.networks):
                mac = self.neighbours.get(address)
                return Hop(address=address, ifindex=link.ifindex, on_link=True, mac=mac)
        for link in links:
            via = link.gateway
            if via is not None and via.version == address.version:
                mac = self.neighbours.get(via)
                return Hop(address=via, ifindex=link.ifindex, on_link=False, mac=mac)
        return None

    async def watch(self, changed: Callable[[], None]) -> None:
        self.watchers.append(changed)
        await asyncio.Event().wait()

    async def replace_route(self, route: Route) -> None:
        request = f"replace route to {route.destination}"
        if not self._by_index(route.ifindex, request).up:
            raise NetlinkRefused(request, errno.ENETDOWN, os.strerror(errno.ENETDOWN))
        self.routes[route.destination] = route

    async def delete_route(self, route: Route) -> None:
        held = self.routes.get(route.destination)
        if held is not None and held.ifindex == route.ifindex:
            del self.routes[route.destination]

    async def enable_forwarding(self) -> None:
        self.forwarding = True

    async def reserved_ports(self) -> str:
        return self.reserved

    async def set_reserved_ports(self, ports: str) -> None:
        self.reserved = ports

    async def create_netns(self, name: str) -> str:
        self.netns.add(f"{RUN_DIR}/{name}")
        return f"{RUN_DIR}/{name}"

    async def delete_netns(self, name: str) -> None:
        path = f"{RUN_DIR}/{name}"
        self.netns.discard(path)
        for link in list(self.links.values()):
            if link.veth is not None and link.veth.netns == path:
                await self.delete_link(link.ifname)

    async def close(self) -> None:
        """Nothing stays open."""
