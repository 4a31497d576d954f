"""The way to a peer: asked of the routing table, tried natively, and decided anew on news."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network
from types import SimpleNamespace

import attrs
import pytest

from meshnet.agent import routes as routes_module
from meshnet.agent.native_probe import NativeProber, Target, answered, echo
from meshnet.agent.paths import Paths
from meshnet.agent.routes import Routes
from meshnet.agent.underlay import UnderlayWatch
from meshnet.model.cluster import Routing, TunnelProtocol
from meshnet.model.dataplane import Mode
from meshnet.model.kernel import Underlay
from meshnet.model.node import Node
from meshnet.netlink.memory import MemoryNetlink
from tests.support.node import CLUSTER, local_node
from tests.support.packets import checksum

OUTER, SIX = ip_address("172.31.0.12"), ip_address("fd31::12")
PEER = Node(
    name="east-2",
    cluster="east",
    cluster_id=1,
    addresses=(OUTER, SIX),
    gateways=(ip_address("10.1.8.1"), ip_address("fd00:10:1:8::1")),
    pod_cidrs=(ip_network("10.1.8.0/29"), ip_network("fd00:10:1:8::/112")),
)


class World:
    """east-1 on one link with its peer, and what was asked for."""

    def __init__(self, routing: Routing, tunnel: TunnelProtocol = TunnelProtocol.VXLAN) -> None:
        cluster = attrs.evolve(CLUSTER, routing=routing, tunnel=tunnel)
        self.local = attrs.evolve(local_node(), cluster=cluster)
        self.kernel = MemoryNetlink()
        self.kernel.add_interface("lo", [])
        self.ifindex = self.kernel.add_interface(
            "eth1",
            self.local.underlay.addresses,
            networks=[ip_network("172.31.0.0/24"), ip_network("fd31::/64")],
        )
        nodes = [self.local.as_node(), PEER]
        self.view = SimpleNamespace(tables=SimpleNamespace(synced=True), nodes=lambda: nodes)
        self.changes = 0
        self.paths = Paths(self.local, self.view, self.kernel, changed=self._changed)  # type: ignore[arg-type]

    def _changed(self) -> None:
        self.changes += 1

    def confirm(self) -> None:
        """Every probe that is under way comes through."""
        for trial in self.paths.prober._trials.values():
            trial.confirmed = True


async def test_in_a_tunnel_nothing_is_probed_and_the_next_hop_is_known() -> None:
    world = World(Routing.TUNNEL, TunnelProtocol.GENEVE)
    assert world.paths.path(OUTER).mode(4) is Mode.GENEVE

    await world.paths.reconcile()

    path = world.paths.path(OUTER)
    assert (path.mode(4), path.mode(6)) == (Mode.GENEVE, Mode.GENEVE)
    assert (path.next_hops, path.ifindex) == ((OUTER, SIX), world.ifindex)
    assert world.paths.prober._trials == {}


async def test_auto_is_native_after_the_probe_and_the_hosts_routes_follow() -> None:
    world = World(Routing.AUTO)
    vxlan, _ = await world.kernel.ensure_vxlan("vx", port=8472, mtu=1450, addresses=())
    await world.kernel.set_up(vxlan)
    routes = Routes(world.local, world.view, world.paths, world.kernel, vxlan_ifindex=vxlan)  # type: ignore[arg-type]

    await world.paths.reconcile()
    await routes.reconcile()
    before = {route.destination: route.ifindex for route in await world.kernel.list_routes()}
    world.confirm()
    await world.paths.reconcile()
    await routes.reconcile()
    after = {route.destination: route for route in await world.kernel.list_routes()}

    assert world.paths.path(OUTER).summary is Mode.NATIVE
    assert set(before.values()) == {vxlan}
    four, six = PEER.pod_cidrs
    assert (after[four].via, after[four].ifindex) == (OUTER, world.ifindex)
    assert (after[six].via, after[six].source) == (SIX, world.local.gateway(6))
    assert world.changes == 2

    world.paths.prober.aim([])  # the way is lost
    await world.paths.reconcile()
    await routes.reconcile()
    assert {r.ifindex for r in await world.kernel.list_routes()} == {vxlan}


async def test_a_measured_path_narrows_the_hosts_routes_and_the_endpoints() -> None:
    world = World(Routing.TUNNEL)
    vxlan, _ = await world.kernel.ensure_vxlan("vx", port=8472, mtu=1450, addresses=())
    await world.kernel.set_up(vxlan)
    routes = Routes(world.local, world.view, world.paths, world.kernel, vxlan_ifindex=vxlan)  # type: ignore[arg-type]
    four, six = PEER.pod_cidrs
    for measured, fits in ((None, (1450, 1450)), (1400, (1350, 1350)), (1300, (1250, 1280))):
        if measured:
            world.paths.path_prober.path_mtus[OUTER] = measured
        await world.paths.reconcile()
        await routes.reconcile()

        found = {route.destination: route.mtu for route in await world.kernel.list_routes()}
        assert (found[four], found[six]) == fits
        assert world.paths.path_mtu(OUTER) == (measured or 1500)
        assert world.paths.endpoint_mtu == fits[0]


async def test_the_kernel_is_asked_again_for_another_route_for_news_and_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(Routing.TUNNEL)
    vxlan, _ = await world.kernel.ensure_vxlan("vx", port=8472, mtu=1450, addresses=())
    await world.kernel.set_up(vxlan)
    routes = Routes(world.local, world.view, world.paths, world.kernel, vxlan_ifindex=vxlan)  # type: ignore[arg-type]
    await world.paths.reconcile()

    async def mended() -> bool:
        """Whether the next pass writes again what somebody took away."""
        gone = next(iter(world.kernel.routes))
        del world.kernel.routes[gone]
        await routes.reconcile()
        return gone in world.kernel.routes

    await routes.reconcile()
    assert not await mended(), "nothing was heard of it"
    routes.doubt()
    assert await mended()
    world.paths.path_prober.path_mtus[OUTER] = 1400
    assert await mended()
    monkeypatch.setattr(routes_module, "LISTED_S", 0.0)
    assert await mended()


async def test_who_is_measured_is_named_with_both_ends_inside_and_outside() -> None:
    world = World(Routing.TUNNEL, TunnelProtocol.GENEVE)
    (peer,) = world.paths._path_peers()

    assert (peer.own_address, peer.address) == (world.local.underlay_address(4), OUTER)
    assert peer.inner == (world.local.gateway(4), PEER.gateways[0])
    assert peer.mode is Mode.GENEVE


async def test_news_of_routes_has_every_hop_asked_again() -> None:
    world = World(Routing.TUNNEL)
    await world.paths.reconcile()
    await world.kernel.delete_link("eth1")
    router = ip_address("192.0.2.254")
    ifindex = world.kernel.add_interface("eth2", [ip_address("192.0.2.1")], gateway=router)

    await world.paths.reconcile()
    assert world.paths.path(OUTER).ifindex == world.ifindex
    world.paths.routes_changed()
    await world.paths.reconcile()

    path = world.paths.path(OUTER)
    assert (path.next_hops, path.ifindex) == ((router,), ifindex)


def watch(world: World, *, managed: bool = False) -> tuple[UnderlayWatch, list[str]]:
    said: list[str] = []
    settings = SimpleNamespace(etcd=SimpleNamespace(managed=managed))
    underlay = attrs.evolve(world.local.underlay, ifindex=world.ifindex, ifname="eth1")
    local = attrs.evolve(world.local, underlay=underlay)
    made = UnderlayWatch(
        local,
        world.kernel,
        settings,  # type: ignore[arg-type]
        routes_changed=lambda: said.append("routes"),
        stop=lambda: said.append("stop"),
    )
    return made, said


@pytest.mark.parametrize(
    ("addresses", "managed", "expected"),
    [
        (["172.31.0.11", "fd31::11"], False, (["routes"], False)),
        (["172.31.0.99", "fd31::11"], False, (["stop"], True)),
        (["172.31.0.11", "172.31.0.99", "fd31::11"], True, (["stop"], True)),
        (["172.31.0.99", "fd31::11"], True, ([], False)),
        ([], False, ([], False)),
    ],
    ids=["routes", "moved", "added", "etcd is here", "gone"],
)
async def test_what_becomes_of_the_underlay(
    addresses: list[str], managed: bool, expected: tuple[list[str], bool]
) -> None:
    world = World(Routing.TUNNEL)
    watching, said = watch(world, managed=managed)
    world.kernel.links["eth1"].addresses = tuple(map(ip_address, addresses))

    await watching._look()

    assert (said, watching.moved) == expected
    assert bool(watching.fault) is (expected == ([], False))


async def test_a_fault_of_the_underlay_ends_when_the_address_is_back() -> None:
    world = World(Routing.TUNNEL)
    watching, said = watch(world)
    before: Underlay = world.local.underlay
    world.kernel.links["eth1"].addresses = ()
    await watching._look()
    assert watching.fault is not None
    assert "eth1" in watching.fault

    world.kernel.links["eth1"].addresses = before.addresses
    await watching._look()

    assert (watching.fault, said) == (None, ["routes"])


@pytest.mark.parametrize(
    ("source", "destination"), [("10.1.4.1", "10.1.8.1"), ("fd00:10:1:4::1", "fd00:10:1:8::1")]
)
def test_an_echo_has_checksums_that_are_right_and_its_answer_is_known(
    source: str, destination: str
) -> None:
    a, b = ip_address(source), ip_address(destination)
    packet = echo(a, b, 0x1234, 7)

    if a.version == 4:
        assert checksum(packet[:20]) == 0
        assert checksum(packet[20:]) == 0
        reply = packet[:20] + bytes([0]) + packet[21:]
        other = packet
    else:
        pseudo = a.packed + b.packed + struct.pack("!II", 8, 58)
        assert checksum(pseudo + packet[40:]) == 0
        reply = bytes([129]) + packet[41:]
        other = packet[40:]
    assert answered(a.version, reply, 0x1234) == 7
    assert answered(a.version, reply, 0x4321) is None
    assert answered(a.version, other, 0x1234) is None
    assert answered(a.version, reply[:10] if a.version == 4 else reply[:7], 0x1234) is None


def test_a_way_is_won_by_one_answer_and_lost_by_three_missing() -> None:
    news: list[None] = []
    prober = NativeProber(MemoryNetlink(), lambda: news.append(None))
    target = Target(source=ip_address("10.1.4.1"), destination=PEER.gateways[0], hop=OUTER)
    prober.aim([target])
    trial = prober._trials[target]

    def send(now: float) -> None:
        prober._try(None, target, trial, None, now)  # type: ignore[arg-type]

    send(0.0)
    send(1.0)
    assert (prober.confirmed, trial.due) == (frozenset(), 2.0)
    prober._answered(PEER.gateways[0], trial.awaited or 0)
    assert (prober.confirmed, len(news)) == ({target}, 1)
    for now in (10.0, 11.0, 12.0):
        send(now)
    assert prober.confirmed == {target}
    send(13.0)
    assert (prober.confirmed, len(news)) == (frozenset(), 2)


def test_what_never_answers_is_asked_less_and_less() -> None:
    prober = NativeProber(MemoryNetlink(), lambda: None)
    target = Target(source=ip_address("10.1.4.1"), destination=PEER.gateways[0], hop=OUTER)
    prober.aim([target])
    trial = prober._trials[target]
    pauses = []
    for _ in range(10):
        prober._try(None, target, trial, None, 0.0)  # type: ignore[arg-type]
        pauses.append(trial.due)

    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == 60.0
