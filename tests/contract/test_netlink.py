"""One suite over the real kernel (in network namespaces of its own) and the fake."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_interface, ip_network

import attrs
import pytest

from meshnet.errors import AlreadyExists, ConfigError, NetlinkRefused, NotFound
from meshnet.model.addressing import Address
from meshnet.model.kernel import Hop, Route, VethSpec
from meshnet.netlink.api import Netlink
from meshnet.netlink.memory import MemoryNetlink
from meshnet.netlink.rtnl import Rtnl

NODE = f"lbx-node-{os.getpid()}"
ENDPOINT = f"lbx-ep-{os.getpid()}"
GATEWAYS = (ip_address("10.9.0.1"), ip_address("fd00:9::1"))


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class RealWorld:
    """A node in a namespace; interfaces are bridges, since a kernel may lack `dummy`."""

    def __init__(self) -> None:
        ip("netns", "add", NODE)
        self.netlink: Netlink = Rtnl(f"/run/netns/{NODE}")

    def add_interface(self, name: str, *addresses: str, default: str | None = None) -> None:
        ip("-n", NODE, "link", "add", name, "type", "bridge")
        ip("-n", NODE, "link", "set", name, "up")
        for address in addresses:
            ip("-n", NODE, "addr", "add", address, "dev", name)
        if default is not None:
            ip("-n", NODE, "route", "add", "default", "via", default, "dev", name)

    def know_neighbour(self, name: str, address: Address, mac: str) -> None:
        ip("-n", NODE, "neigh", "add", str(address), "lladdr", mac, "dev", name)

    def close(self) -> None:
        for name in (NODE, ENDPOINT):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class FakeWorld:
    def __init__(self) -> None:
        self.fake = MemoryNetlink()
        self.netlink: Netlink = self.fake

    def add_interface(self, name: str, *addresses: str, default: str | None = None) -> None:
        given = [ip_interface(text) for text in addresses]
        self.fake.add_interface(
            name,
            [interface.ip for interface in given],
            networks=[interface.network for interface in given],
            gateway=ip_address(default) if default else None,
        )

    def know_neighbour(self, name: str, address: Address, mac: str) -> None:
        self.fake.neighbours[address] = mac

    def close(self) -> None:
        pass


World = RealWorld | FakeWorld


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.netlink)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made: World = FakeWorld() if request.param == "fake" else RealWorld()
    try:
        yield made
        await made.netlink.close()
    finally:
        made.close()


async def spec_in(world: World, **changes: object) -> VethSpec:
    path = await world.netlink.create_netns(ENDPOINT)
    spec = VethSpec(
        host_ifname="mesh5",
        host_mac="0a:00:00:00:00:01",
        netns=path,
        ifname="eth0",
        addresses=(ip_address("10.9.0.5"), ip_address("fd00:9::5")),
        gateways=GATEWAYS,
        mtu=1500,
        route_mtu=1450,
    )
    return attrs.evolve(spec, **changes)  # type: ignore[arg-type]


async def test_the_interface_of_the_default_route_is_the_underlay(world: World) -> None:
    world.add_interface("br-other", "192.0.2.1/24")
    world.add_interface("br-up", "fd00:1::2/64", "198.51.100.2/24", default="198.51.100.1")
    found = await world.netlink.find_underlay(None)
    assert found.ifname == "br-up"
    assert found.addresses == (ip_address("198.51.100.2"), ip_address("fd00:1::2"))


async def test_the_only_addressed_interface_is_the_underlay(world: World) -> None:
    world.add_interface("br-bare")
    world.add_interface("br-up", "198.51.100.2/24")
    assert (await world.netlink.find_underlay(None)).ifname == "br-up"


async def test_two_possible_underlays_are_an_error_that_lists_them(world: World) -> None:
    world.add_interface("br-one", "192.0.2.1/24")
    world.add_interface("br-two", "198.51.100.2/24")
    with pytest.raises(ConfigError, match=r"more than one.*--underlay.*br-one.*br-two"):
        await world.netlink.find_underlay(None)
    assert (await world.netlink.find_underlay("br-one")).ifname == "br-one"
    assert (await world.netlink.find_underlay("198.51.100.0/24")).ifname == "br-two"


async def test_an_underlay_that_does_not_exist_is_refused_with_the_candidates(
    world: World,
) -> None:
    world.add_interface("br-one", "192.0.2.1/24")
    with pytest.raises(ConfigError, match=r"'nope'.*br-one \(192.0.2.1\)"):
        await world.netlink.find_underlay("nope")
    with pytest.raises(ConfigError, match=r"203.0.113.0/24.*br-one"):
        await world.netlink.find_underlay("203.0.113.0/24")
    with pytest.raises(NotFound, match="nope"):
        await world.netlink.underlay_by_name("nope")


async def test_a_machine_without_addresses_has_no_underlay(world: World) -> None:
    with pytest.raises(ConfigError, match="no interface has a global address"):
        await world.netlink.find_underlay(None)


async def test_the_vxlan_device_is_made_once_and_remade_when_its_port_changes(
    world: World,
) -> None:
    make = world.netlink.ensure_vxlan
    first = await make("mvx", port=8472, mtu=1450, addresses=GATEWAYS)
    assert await make("mvx", port=8472, mtu=1400, addresses=GATEWAYS[:1]) == first
    assert await make("mvx", port=8473, mtu=1450, addresses=()) != first


async def test_a_device_for_ipv6_takes_1280_bytes_or_is_refused(world: World) -> None:
    make = world.netlink.ensure_vxlan
    index, _ = await make("mvx", port=8472, mtu=1280, addresses=GATEWAYS)
    with pytest.raises(NetlinkRefused, match="net/ipv6/conf/mvx"):
        await make("mvx", port=8472, mtu=1279, addresses=GATEWAYS)
    assert (await make("mvx", port=8472, mtu=1280, addresses=GATEWAYS))[0] == index


async def test_the_vxlan_device_is_never_taken_for_the_underlay(world: World) -> None:
    world.add_interface("br-up", "198.51.100.2/24")
    await world.netlink.ensure_vxlan("mvx", port=8472, mtu=1450, addresses=GATEWAYS)
    assert (await world.netlink.find_underlay(None)).ifname == "br-up"


async def test_a_veth_may_be_made_again_and_stays_the_same(world: World) -> None:
    spec = await spec_in(world)
    first = await world.netlink.create_veth(spec)
    changed = attrs.evolve(spec, addresses=(ip_address("10.9.0.6"),), ifname="eth7")
    assert await world.netlink.create_veth(changed) == first
    assert await world.netlink.list_veths("mesh") == {"mesh5": first.ifindex}


async def test_a_veth_whose_namespace_is_another_one_is_made_anew(world: World) -> None:
    first = await world.netlink.create_veth(await spec_in(world))
    await world.netlink.delete_netns(ENDPOINT)
    again = await world.netlink.create_veth(await spec_in(world))
    assert again.ifindex != first.ifindex


async def test_a_veth_brings_its_routes_and_takes_them_away(world: World) -> None:
    veth = await world.netlink.create_veth(await spec_in(world))
    routes = {str(route.destination): route for route in await world.netlink.list_routes()}
    assert set(routes) == {"10.9.0.5/32", "fd00:9::5/128"}
    assert {route.ifindex for route in routes.values()} == {veth.ifindex}
    await world.netlink.delete_link("mesh5")
    await world.netlink.delete_link("mesh5")
    assert await world.netlink.list_routes() == []
    assert await world.netlink.list_veths("mesh") == {}


async def test_a_veth_into_no_namespace_leaves_nothing(world: World) -> None:
    spec = await spec_in(world, netns="/run/netns/lbx-there-is-none")
    with pytest.raises(NotFound, match="lbx-there-is-none"):
        await world.netlink.create_veth(spec)
    assert await world.netlink.list_veths("") == {}


async def test_an_interface_name_taken_in_the_namespace_is_refused(world: World) -> None:
    spec = await spec_in(world)
    await world.netlink.create_veth(spec)
    with pytest.raises(AlreadyExists, match=r"'eth0'.*--ifname"):
        await world.netlink.create_veth(attrs.evolve(spec, host_ifname="mesh6"))
    assert set(await world.netlink.list_veths("mesh")) == {"mesh5"}


async def test_routes_are_replaced_listed_and_deleted(world: World) -> None:
    index, _ = await world.netlink.ensure_vxlan("mvx", port=8472, mtu=1450, addresses=GATEWAYS)
    await world.netlink.set_up(index)
    four = Route(
        destination=ip_network("10.10.0.0/16"), ifindex=index, source=GATEWAYS[0], mtu=1400
    )
    six = Route(destination=ip_network("fd00:10::/48"), ifindex=index)
    for route in (four, six, six):
        await world.netlink.replace_route(route)
    wider = attrs.evolve(four, mtu=1450)
    await world.netlink.replace_route(wider)
    assert set(await world.netlink.list_routes()) == {wider, six}
    for _ in range(2):
        await world.netlink.delete_route(wider)
    assert await world.netlink.list_routes() == [six]


async def test_a_route_through_a_link_that_is_down_or_missing_is_refused(world: World) -> None:
    index, _ = await world.netlink.ensure_vxlan("mvx", port=8472, mtu=1450, addresses=())
    route = Route(destination=ip_network("10.10.0.0/16"), ifindex=index)
    with pytest.raises(NetlinkRefused, match=r"10\.10\.0\.0/16.*down"):
        await world.netlink.replace_route(route)
    with pytest.raises(NetlinkRefused):
        await world.netlink.replace_route(attrs.evolve(route, ifindex=4711))


async def test_reserved_ports_are_those_that_were_set(world: World) -> None:
    for ports in ("40000-60999", "4244,40000-60999", ""):
        await world.netlink.set_reserved_ports(ports)
        assert await world.netlink.reserved_ports() == ports


@pytest.mark.netlink
async def test_the_kernel_has_what_a_veth_needs_so_that_nobody_asks_for_a_neighbour() -> None:
    world = RealWorld()
    try:
        spec = await spec_in(world)
        index, _ = await world.netlink.ensure_vxlan("mvx", port=8472, mtu=1450, addresses=GATEWAYS)
        await world.netlink.set_up(index)
        await world.netlink.enable_forwarding()
        await world.netlink.create_veth(spec)
        ip("netns", "exec", NODE, "ping", "-c1", "-W1", "10.9.0.5")
        ip("netns", "exec", ENDPOINT, "ping", "-c1", "-W1", "fd00:9::1")
        neighbours = json.loads(ip("-n", ENDPOINT, "-j", "neigh"))
        assert {(n["dst"], n["lladdr"], *n["state"]) for n in neighbours} == {
            (str(gateway), spec.host_mac, "PERMANENT") for gateway in GATEWAYS
        }
        default = json.loads(ip("-n", ENDPOINT, "-j", "route", "show", "default"))
        assert default[0]["gateway"] == "10.9.0.1"
        assert default[0]["metrics"] == [{"mtu": 1450}]
        received = json.loads(ip("-n", NODE, "-j", "-s", "link", "show", "mesh5"))
        assert received[0]["stats64"]["rx"]["packets"] <= 4, "only the pings: nothing solicited"
        shape = json.loads(ip("-n", NODE, "-j", "-d", "link", "show", "mvx"))[0]["linkinfo"]
        data = shape["info_data"]
        assert (data["external"], data["port"], data["learning"]) == (True, 8472, False)
        assert data["udp_zero_csum6_rx"] and data["udp_zero_csum6_tx"]
    finally:
        world.close()


async def test_the_next_hop_is_the_neighbour_itself_or_the_router(world: World) -> None:
    world.add_interface("br-up", "198.51.100.2/24", "fd00:1::2/64", default="198.51.100.1")
    underlay = await world.netlink.find_underlay("br-up")
    near, near6 = ip_address("198.51.100.7"), ip_address("fd00:1::7")
    far, nowhere = ip_address("203.0.113.9"), ip_address("2001:db8::9")

    found = await world.netlink.hops_to([near, near6, far, nowhere, underlay.addresses[0]])

    at = underlay.ifindex
    assert found == {
        near: Hop(address=near, ifindex=at, on_link=True),
        near6: Hop(address=near6, ifindex=at, on_link=True),
        far: Hop(address=ip_address("198.51.100.1"), ifindex=at, on_link=False),
    }
    assert await world.netlink.hops_to([]) == {}


async def test_a_hops_mac_is_the_neighbours(world: World) -> None:
    world.add_interface("br-up", "198.51.100.2/24")
    near, unknown = ip_address("198.51.100.7"), ip_address("198.51.100.8")
    world.know_neighbour("br-up", near, "02:00:00:00:00:07")

    found = await world.netlink.hops_to([near, unknown], macs=True)

    assert found[near].mac == "02:00:00:00:00:07"
    assert found[unknown].mac is None


async def test_ipv4_may_be_routed_by_an_ipv6_hop(world: World) -> None:
    world.add_interface("br-up", "fd00:1::2/64")
    underlay = await world.netlink.find_underlay("br-up")
    await world.netlink.set_up(underlay.ifindex)
    wanted = [
        Route(
            destination=ip_network(destination),
            ifindex=underlay.ifindex,
            via=ip_address("fd00:1::7"),
        )
        for destination in ("10.8.0.0/24", "fd00:8::/112")
    ]
    for route in wanted:
        await world.netlink.replace_route(route)

    found = {route.destination: route for route in await world.netlink.list_routes()}
    assert [found[route.destination] for route in wanted] == wanted


async def test_a_new_address_is_news_and_our_own_doings_are_not(world: World) -> None:
    world.add_interface("br-up", "198.51.100.2/24")
    underlay = await world.netlink.find_underlay("br-up")
    spec = await spec_in(world)
    news: list[None] = []
    watching = asyncio.create_task(world.netlink.watch(lambda: news.append(None)))
    await asyncio.sleep(0.05)

    await world.netlink.create_veth(spec)
    await world.netlink.replace_route(
        Route(destination=ip_network("10.8.0.0/24"), ifindex=underlay.ifindex)
    )
    await asyncio.sleep(0.05)
    quiet = list(news)
    world.add_interface("br-new", "203.0.113.2/24")
    async with asyncio.timeout(5):
        while not news:
            await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    assert quiet == []
