"""The programs and the fake give every packet the same fate."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import product

import pytest

from meshnet.dataplane.memory import MemoryDataplane
from meshnet.model.dataplane import IpcacheRow
from tests.support.bpf import API, NOT_OURS, OK, REDIRECT, SHOT, WEB, Node, config
from tests.support.packets import frame, ip, read, udp, vxlan_frame

pytestmark = pytest.mark.bpf

V4 = [
    *("10.1.0.1", "10.1.0.10", "10.1.0.11", "10.1.0.99", "10.2.0.1", "10.2.0.10", "10.2.0.11"),
    *("10.2.0.99", "10.2.5.1", "10.3.0.10", "192.0.2.1", "192.0.2.2", "8.8.8.8", "224.0.0.1"),
    *("127.0.0.1", "0.0.0.0", "240.0.0.1", "255.255.255.255"),
]
V6 = [
    *("fd00:10:1::1", "fd00:10:1::10", "fd00:10:1::11", "fd00:10:1::99", "fd00:10:2::1"),
    *("fd00:10:2::10", "fd00:10:2::11", "fd00:10:2::99", "fd00:10:3::10", "2001:db8::1"),
    *("2001:db8::2", "fe80::1", "ff02::1", "2606:4700::1111"),
    *("::", "::1"),
]
VNIS = [*range(10), 255, 256, WEB, API, 2 << 16 | 255, 2 << 16 | 256, 3 << 16 | 400, 0xFFFFFF]
OUTER = ["192.0.2.1", "192.0.2.2", "192.0.2.99"]


def twin(east: Node) -> MemoryDataplane:
    """The fake with the same rows."""
    east.dataplane.update_ipcache(
        {
            ip_network("10.2.4.0/22"): IpcacheRow(identity=API, node=ip_address("192.0.2.2")),
            ip_network("10.2.0.0/16"): IpcacheRow(identity=2, node=None),
        },
        (),
    )
    memory = MemoryDataplane()
    memory.configure(config())
    memory.update_nodes(east.dataplane.nodes(), ())
    memory.update_ipcache(east.dataplane.ipcache(), ())
    for row in east.dataplane.endpoints().values():
        memory.attach_endpoint(row)
    return memory


def way(verdict: int, packet: bytes) -> str:
    if verdict != REDIRECT:
        return {OK: "stack", SHOT: "drop", NOT_OURS: "untouched"}[verdict]
    return "tunnel" if read(packet).ports[1] == 8472 else "local"


@pytest.mark.parametrize("addresses", [V4, V6], ids=["IPv4", "IPv6"])
def test_what_endpoints_send(east: Node, addresses: list[str]) -> None:
    memory = twin(east)
    for source, destination in product(addresses, addresses):
        done = east.from_web(frame(ip(source, destination, udp(1, 2))))
        fate = memory.from_endpoint(east.web, ip_address(source), ip_address(destination))

        assert way(done.verdict, done.packet) == fate.way, f"{source} to {destination}: {fate}"
        if fate.way == "tunnel":
            assert read(done.packet).destination == fate.node
    assert east.drops() == {f"{d.reason} {d.direction}": d.packets for d in memory.drops()}
    assert east.dataplane.seen_identities() == memory.seen_identities()


@pytest.mark.parametrize("addresses", [V4[:10] + V4[14:], V6[:9] + V6[14:]], ids=["IPv4", "IPv6"])
def test_what_other_nodes_tunnel_to_us(east: Node, addresses: list[str]) -> None:
    memory = twin(east)
    for outer, vni, source in product(OUTER, VNIS, addresses):
        for destination in addresses[:4]:
            inner = frame(ip(source, destination, udp(1, 2)))
            done = east.from_underlay(vxlan_frame(outer, "192.0.2.1", vni=vni, inner=inner))
            fate = memory.from_underlay(
                ip_address(outer), vni, ip_address(source), ip_address(destination)
            )

            assert done.verdict != NOT_OURS
            assert way(done.verdict, done.packet) == fate.way, f"{outer} {vni:#x} {source}: {fate}"
    assert east.drops() == {f"{d.reason} {d.direction}": d.packets for d in memory.drops()}
    assert east.dataplane.seen_identities() == memory.seen_identities()


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("addresses", [V4, V6], ids=["IPv4", "IPv6"])
def test_what_comes_without_a_tunnel(east: Node, addresses: list[str], native: bool) -> None:
    east.dataplane.configure(config(accept_native=native))
    memory = twin(east)
    memory.configure(config(accept_native=native))
    for source, destination in product(addresses, addresses):
        done = east.from_underlay(frame(ip(source, destination, udp(1, 2))))
        fate = memory.from_wire(ip_address(source), ip_address(destination))

        assert way(done.verdict, done.packet) == fate.way, f"{source} to {destination}: {fate}"
    assert east.drops() == {f"{d.reason} {d.direction}": d.packets for d in memory.drops()}
    assert east.dataplane.seen_identities() == memory.seen_identities()
