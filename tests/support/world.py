"""web of east-1 and a server in the world, one packet at a time.

web  10.1.0.10  ── east-1  192.0.2.1 ── router 192.0.2.254 ── server 198.51.100.7
     fd00:10:1::10         2001:db8::1         2001:db8::fe          2001:db8:ffff::7
"""

from __future__ import annotations

import struct
from ipaddress import ip_network
from typing import Any

import attrs

from meshnet.dataplane import abi
from tests.support.bpf import REDIRECT, Node, Outcome, config, run
from tests.support.packets import (
    ICMP,
    ICMPV6,
    Packet,
    Payload,
    Read,
    frame,
    ip,
    l4_checksum,
    read,
    summed,
    udp,
)

POOL = (40000, 60999)
FEW_PORTS = (40000, 40003)
EXEMPT = (ip_network("203.0.113.0/24"), ip_network("2001:db8:eeee::/48"))
"""Where endpoints are seen by their own addresses."""

WEB = {4: "10.1.0.10", 6: "fd00:10:1::10"}
DB = {4: "10.1.0.11", 6: "fd00:10:1::11"}
NODE = {4: "192.0.2.1", 6: "2001:db8::1"}
ROUTER = {4: "192.0.2.254", 6: "2001:db8::fe"}
SERVER = {4: "198.51.100.7", 6: "2001:db8:ffff::7"}
EXEMPTED = {4: "203.0.113.9", 6: "2001:db8:eeee::9"}


def route_to_the_world() -> None:
    """What the host's administrator set up, in the current namespace."""
    for command in (
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        "ip link set web up",
        "ip link set db up",
        "ip link set wire up",
        "ip link set underlay up",
        f"ip addr add {NODE[4]}/24 dev underlay",
        f"ip addr add {NODE[6]}/64 dev underlay nodad",
        f"ip route add default via {ROUTER[4]} dev underlay",
        f"ip route add default via {ROUTER[6]} dev underlay",
        "ip route add 10.1.0.10 dev web",
        "ip route add fd00:10:1::10 dev web",
    ):
        run(command)


def echo(family: int, identifier: int, *, answer: bool = False) -> Payload:
    kind = {4: (8, 0), 6: (128, 129)}[family][answer]
    return Payload(
        {4: ICMP, 6: ICMPV6}[family], struct.pack("!BBHHH", kind, 0, 0, identifier, 1) + b"ping"
    )


def assert_summed(packet: Read) -> None:
    found = l4_checksum(
        packet.source.packed, packet.destination.packed, packet.protocol, packet.payload
    )
    assert found == 0, f"checksum of {packet}"


@attrs.frozen
class Visit:
    node: Node
    family: int

    def out(self, payload: Payload, **more: Any) -> Outcome:
        """web sends it to the server."""
        return self.send(WEB[self.family], SERVER[self.family], payload, **more)

    def send(self, source: str, to: str, payload: Payload, **more: Any) -> Outcome:
        packet = ip(source, to, summed(source, to, payload), **more)
        ifindex = self.node.web if source in WEB.values() else self.node.db
        return self.node.send("from_endpoint", frame(packet), ifindex)

    def back(self, payload: Payload, **more: Any) -> Outcome:
        """The server sends it to this node."""
        source, to = SERVER[self.family], NODE[self.family]
        return self.arrive(ip(source, to, summed(source, to, payload), **more))

    def arrive(self, packet: Packet) -> Outcome:
        return self.node.from_underlay(frame(packet))

    def hidden(self, payload: Payload, **more: Any) -> Read:
        """As it leaves: by this node's address, with every checksum right."""
        done = self.out(payload, **more)
        assert done.verdict == REDIRECT, self.node.drops()
        packet = read(done.packet)
        assert str(packet.source) == NODE[self.family]
        assert str(packet.destination) == SERVER[self.family]
        return packet

    def rows(self) -> list[dict[str, Any]]:
        return self.node.dataplane.dump("nat")

    def change(self, **fields: int) -> None:
        """In every row there is."""
        rows = self.node.map("nat")
        for key, value in list(rows.items()):
            row = abi.Nat.from_buffer_copy(value)
            for name, field in fields.items():
                setattr(row, name, field)
            rows.update(key, bytes(row))


def _masquerade(east: Node) -> None:
    east.dataplane.configure(config(masquerade_ports=(40000, 40000)))
    route_to_the_world()


def _the_world_is_elsewhere(east: Node) -> None:
    _masquerade(east)
    run(f"ip route add {SERVER[4]} dev db")


def _the_only_port_is_taken(east: Node) -> None:
    _masquerade(east)
    east.from_web(frame(ip(WEB[4], SERVER[4], udp(4000, 53))))


def _out(payload: Payload) -> bytes:
    return frame(ip(WEB[4], SERVER[4], payload))


_R = abi.DropReason
NAT_REFUSED = (
    (_R.NAT_NO_ADDRESS, "from_endpoint", _out(udp(4000, 53)), _the_world_is_elsewhere),
    (_R.NAT_NO_PORT, "from_endpoint", _out(udp(4001, 53)), _the_only_port_is_taken),
    (_R.NAT_PROTOCOL, "from_endpoint", _out(Payload(47, bytes(20))), _masquerade),
    (_R.NAT_NO_FLOW, "from_endpoint", _out(Payload(ICMP, b"\x03\x03" + bytes(34))), _masquerade),
)
"""A reason, the program that gives it, a packet, and what to do before."""
