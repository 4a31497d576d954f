"""web of east-1 and api of west-1, one packet at a time, and what east-1 remembers of it."""

from __future__ import annotations

import struct
from typing import Any

import attrs

from meshnet.dataplane import abi
from tests.support.bpf import API, Node
from tests.support.packets import ICMP, ICMPV6, Packet, Payload, frame, ip, vxlan_frame

HERE = {4: "10.1.0.10", 6: "fd00:10:1::10"}
NEIGHBOUR = {4: "10.1.0.11", 6: "fd00:10:1::11"}
THERE = {4: "10.2.0.10", 6: "fd00:10:2::10"}


def echo(kind: int, identifier: int, family: int) -> Payload:
    """`kind`: 0 asks, 1 answers."""
    types = {4: (8, 0), 6: (128, 129)}[family]
    return icmp(family, types[kind], struct.pack("!HH", identifier, 1))


def icmp(family: int, kind: int, rest: bytes, code: int = 0) -> Payload:
    """`rest`: what follows the checksum."""
    return Payload(ICMP if family == 4 else ICMPV6, struct.pack("!BBH", kind, code, 0) + rest)


@attrs.frozen
class Talk:
    east: Node
    family: int

    def out(self, payload: Payload, **more: Any) -> int:
        return self.out_packet(ip(HERE[self.family], THERE[self.family], payload, **more))

    def back(self, payload: Payload, **more: Any) -> int:
        return self.back_packet(ip(THERE[self.family], HERE[self.family], payload, **more))

    def out_packet(self, packet: Packet) -> int:
        return self.east.from_web(frame(packet)).verdict

    def back_packet(self, packet: Packet, vni: int = API) -> int:
        sent = vxlan_frame("192.0.2.2", "192.0.2.1", vni=vni, inner=frame(packet))
        return self.east.from_underlay(sent).verdict

    def row(self) -> dict[str, Any]:
        (row,) = self.rows()
        return row

    def rows(self) -> list[dict[str, Any]]:
        return self.east.dataplane.dump("conntrack")

    def set(self, **fields: int) -> None:
        """Change the one row there is."""
        rows = self.east.map("conntrack")
        ((key, value),) = list(rows.items())
        row = abi.Conntrack.from_buffer_copy(value)
        for name, field in fields.items():
            setattr(row, name, field)
        rows.update(key, bytes(row))
