"""Packets that lie, hide or contradict themselves, and the one reason each is refused for."""

from __future__ import annotations

from meshnet.dataplane.abi import DropReason as R
from tests.support.bpf import API
from tests.support.packets import (
    GRE,
    IPIP,
    LOOSE_ROUTE,
    RECORD_ROUTE,
    ROUTING,
    SIT,
    TCP,
    UDP,
    Payload,
    extension,
    frame,
    ip,
    tcp,
    udp,
    vxlan,
    vxlan_frame,
)


def sent(
    payload: Payload, *, source: str = "10.1.0.10", to: str = "10.2.0.10", **more: object
) -> bytes:
    """By the endpoint `web`."""
    return frame(ip(source, to, payload, **more))  # type: ignore[arg-type]


def arrived(payload: Payload, *, source: str = "10.2.0.10", to: str = "10.1.0.10") -> bytes:
    """By the tunnel, from west-1."""
    inner = frame(ip(source, to, payload))
    return vxlan_frame("192.0.2.2", "192.0.2.1", vni=API, inner=inner)


def outer(*, length: int) -> bytes:
    """A true packet, but for the length in its outer UDP header."""
    tunnel = vxlan(API, frame(ip("10.2.0.10", "10.1.0.10", udp(4000, 53))))
    return frame(ip("192.0.2.2", "192.0.2.1", udp(50000, 8472, tunnel, length=length)))


OUT, IN = "from_endpoint", "from_underlay"
V6 = {"source": "fd00:10:1::10", "to": "fd00:10:2::10"}
HERE = "10.1.0.1"

NATIVE_GRE = frame(ip("10.2.0.10", HERE, Payload(GRE, bytes(40))))
"""To the node itself, outside of a tunnel."""

ODD: list[tuple[R, str, bytes]] = [
    (R.L4_TRUNCATED, OUT, sent(Payload(UDP, b"\0\x35"))),
    (R.L4_TRUNCATED, OUT, sent(Payload(TCP, tcp(1, 2).data[:19]))),
    (R.L4_MALFORMED, OUT, sent(udp(1, 2, length=7))),
    (R.L4_MALFORMED, OUT, sent(tcp(1, 2, words=4))),
    (R.SOURCE_ROUTE, OUT, sent(udp(1, 2), options=LOOSE_ROUTE)),
    (R.SOURCE_ROUTE, OUT, sent(extension(udp(1, 2), kind=ROUTING), **V6)),
    (R.IPV4_OPTION, OUT, sent(udp(1, 2), options=RECORD_ROUTE)),
    (R.IPV4_OPTION, OUT, sent(udp(1, 2), options=bytes([1, 148, 4, 0]))),
    (R.BAD_FRAGMENT, OUT, sent(Payload(TCP, bytes(24)), fragment=1)),
    (R.BAD_FRAGMENT, OUT, sent(Payload(UDP, bytes(64)), fragment=0x1FFF)),
    (R.MARTIAN_SOURCE, OUT, sent(udp(1, 2), source="224.0.0.9")),
    (R.MARTIAN_SOURCE, IN, arrived(udp(1, 2), source="127.0.0.1")),
    (R.MARTIAN_SOURCE, IN, arrived(udp(1, 2), source="::", to="fd00:10:1::10")),
    (R.MARTIAN_DESTINATION, OUT, sent(udp(1, 2), to="127.0.0.1")),
    (R.NESTED_IP, OUT, sent(Payload(GRE, bytes(40)), to="192.0.2.2")),
    (R.NESTED_IP, OUT, sent(Payload(IPIP, bytes(40)), to=HERE)),
    (R.NESTED_IP, IN, arrived(Payload(SIT, bytes(40)), to=HERE)),
    (R.NESTED_ENCAPSULATION, IN, arrived(udp(1, 6081, bytes(60)), to=HERE)),
    (R.OUTER_LENGTH, IN, outer(length=9000)),
    (R.OUTER_LENGTH, IN, outer(length=12)),
    (R.OUTER_LENGTH, IN, outer(length=8 + 8 + 14 + 20)),
]
