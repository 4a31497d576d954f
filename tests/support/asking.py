"""web of east-1 asks a service of packets: who answers is api of west-1, or somebody nearer.

web  10.1.0.10:5000  ── 100.64.0.10:80      ──► api  10.2.0.10:8080
     fd00:10:1::10      [fd00:100:64::10]:80         fd00:10:2::10
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import attrs

from meshnet.dataplane import abi
from meshnet.model.dataplane import ServiceRow
from meshnet.model.service import Frontend, Protocol
from tests.support.bpf import API, REDIRECT, Node, Outcome
from tests.support.packets import Packet, Payload, Read, frame, ip, read, summed, udp, vxlan_frame
from tests.support.world import assert_summed

WEB = {4: "10.1.0.10", 6: "fd00:10:1::10"}
DB = {4: "10.1.0.11", 6: "fd00:10:1::11"}
REMOTE = {4: "10.2.0.10", 6: "fd00:10:2::10"}
OTHER = {4: "10.2.0.11", 6: "fd00:10:2::11"}
"""api, and another one by the node's other underlay address."""
VIP = {4: "100.64.0.10", 6: "fd00:100:64::10"}
TOO = {4: "100.64.0.11", 6: "fd00:100:64::11"}
"""Addresses of two services."""
CLIENT, FRONT, BACK = 5000, 80, 8080


@attrs.frozen
class Asking:
    node: Node
    family: int

    def serve(
        self,
        *backends: str,
        at: str = "",
        port: int = FRONT,
        terminating: tuple[str, ...] = (),
        affinity_s: int = 0,
    ) -> None:
        """A service for TCP and UDP, of backends at port 8080."""
        address = ip_address(at or VIP[self.family])

        def addresses(given: tuple[str, ...], protocol: Protocol) -> tuple[Frontend, ...]:
            return tuple(Frontend(ip_address(one), BACK, protocol) for one in given)

        rows = {
            Frontend(address, port, protocol): ServiceRow(
                slots=addresses(backends, protocol),
                terminating=frozenset(addresses(terminating, protocol)),
                affinity_s=affinity_s,
            )
            for protocol in Protocol
        }
        self.node.dataplane.update_services(rows, ())

    def send(
        self, payload: Payload, *, of: str = "", to: str = "", check: bool = True, **more: Any
    ) -> Outcome:
        """An endpoint here sends it: web, to the service, unless it is said otherwise."""
        source, destination = of or WEB[self.family], to or VIP[self.family]
        whole = summed(source, destination, payload) if check else payload
        ifindex = self.node.db if source in DB.values() else self.node.web
        packet = frame(ip(source, destination, whole, **more))
        return self.node.send("from_endpoint", packet, ifindex)

    def asked(self, payload: Payload, **more: Any) -> Read:
        """As it arrives on the other node: from web, to a backend, with every checksum right."""
        done = self.send(payload, **more)
        assert done.verdict == REDIRECT, self.node.drops()
        packet = read(done.packet).inner
        assert str(packet.source) == WEB[self.family]
        assert_summed(packet)
        return packet

    def arrive(self, packet: Packet, *, vni: int = API) -> Outcome:
        """From the other node, by the tunnel."""
        return self.node.from_underlay(
            vxlan_frame("192.0.2.2", "192.0.2.1", vni=vni, inner=frame(packet))
        )

    def answer(self, payload: Payload, *, of: str = "", **more: Any) -> Outcome:
        source, to = of or REMOTE[self.family], WEB[self.family]
        return self.arrive(ip(source, to, summed(source, to, payload), **more))

    def answered(self, payload: Payload, **more: Any) -> Read:
        """As web gets it."""
        done = self.answer(payload, **more)
        assert done.verdict == REDIRECT, self.node.drops()
        packet = read(done.packet)
        assert str(packet.destination) == WEB[self.family]
        assert_summed(packet)
        return packet

    def rows(self) -> list[dict[str, Any]]:
        return self.node.dataplane.dump("service_flows")

    def change(self, **fields: int) -> None:
        """In every row there is."""
        rows = self.node.map("service_flows")
        for key, value in list(rows.items()):
            row = abi.ServiceFlow.from_buffer_copy(value)
            for name, field in fields.items():
                setattr(row, name, field)
            rows.update(key, bytes(row))

    def forget(self, name: str, server: str) -> None:
        """The row that has this address at the far end, as the LRU may do."""
        field, place = {"service_flows": ("server", 16), "conntrack": ("peer", 16)}[name]
        found = self.node.map(name)
        wanted = ip_address(server)
        packed = wanted.packed if wanted.version == 6 else bytes(10) + b"\xff\xff" + wanted.packed
        keys = [key for key, _ in found.items() if key[place : place + 16] == packed]
        assert keys, f"no row with {field} {server}"
        found.delete_many(keys)


def _nobody(east: Node) -> None:
    Asking(east, 4).serve()


def _asked(east: Node) -> None:
    asking = Asking(east, 4)
    asking.serve(REMOTE[4])
    asking.asked(udp(CLIENT, FRONT))


def _asked_long_ago(east: Node) -> None:
    _asked(east)
    Asking(east, 4).change(expires=1)


def _answer() -> bytes:
    inner = frame(ip(REMOTE[4], WEB[4], udp(BACK, CLIENT)))
    return vxlan_frame("192.0.2.2", "192.0.2.1", vni=API, inner=inner)


_R = abi.DropReason
_TO_SERVICE = frame(ip(WEB[4], VIP[4], udp(CLIENT, FRONT)))
_TO_BACKEND = frame(ip(WEB[4], REMOTE[4], udp(CLIENT, BACK)))
SERVICE_REFUSED = (
    (_R.SERVICE_NO_BACKEND, "from_endpoint", _TO_SERVICE, _nobody),
    (_R.SERVICE_AMBIGUOUS, "from_endpoint", _TO_BACKEND, _asked),
    (_R.SERVICE_NO_FLOW, "from_underlay", _answer(), _asked_long_ago),
)
"""A reason, the program that gives it, a packet, and what to do before."""
