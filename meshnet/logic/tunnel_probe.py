"""A datagram in the tunnel's own format that carries no packet but a question.

    UDP ┃ VXLAN or Geneve header, VNI 0 ┃ Ethernet, type 0x88b5 ┃ magic, nonce, side, size ┃ 0...

VNI 0 is nobody's identity and 0x88b5 nobody's protocol (IEEE 802: local experiments), so a
node's dataplane (bpf/from_underlay.c) takes it away, and counts it as `questions`, after whoever
looks at the wire has seen it. Sizes are those of the
outer IP packet, which is what a path's MTU limits.

Source: RFC 7348 section 5 (VXLAN), RFC 8926 section 3.4 (Geneve).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import attrs

from meshnet.model.check import Check, Fault

MAGIC = b"meshprb1"
NONCE_BYTES = 16
ETHERTYPE = 0x88B5
PORTS = {"vxlan": 8472, "geneve": 6081}
_HEADERS = {
    "vxlan": struct.pack("!II", 0x08000000, 0),  # flag I, VNI 0
    "geneve": struct.pack("!BBHI", 0, 0, 0x6558, 0),  # no option, Ethernet inside, VNI 0
}
_ETHERNET = bytes(6) + bytes.fromhex("020000000001") + struct.pack("!H", ETHERTYPE)
_QUESTION = struct.Struct(f"!8s{NONCE_BYTES}sBH")

IPV4_UDP, IPV6_UDP = 28, 48
SMALLEST_INNER = 1280
"""What IPv6 asks of every link (RFC 8200 section 5)."""
STEPS = (200, 576, 1200, 1300, 1350, 1400, 1420, 1430, 1450, 1460, 1480, 1492, 1500, 9000)


@attrs.frozen
class Question:
    nonce: bytes
    side: int
    """0: the joiner's, 1: the signer's."""
    size: int
    source: str
    """The outer source address, as it arrived."""


def smallest(version: int) -> int:
    """The outer packet that an inner one of 1280 bytes becomes."""
    return SMALLEST_INNER + 14 + 8 + (IPV4_UDP if version == 4 else IPV6_UDP)


def sizes(mtu: int, version: int) -> tuple[int, ...]:
    """What to try on an interface of that MTU, the smallest first."""
    least = smallest(version)
    return tuple(sorted({size for size in (least, *STEPS, mtu) if size <= min(mtu, 9000)}))


def payload(protocol: str, nonce: bytes, side: int, size: int, version: int) -> bytes:
    """The UDP payload of a question whose outer IP packet has that size."""
    question = _HEADERS[protocol] + _ETHERNET + _QUESTION.pack(MAGIC, nonce, side, size)
    return question.ljust(size - (IPV4_UDP if version == 4 else IPV6_UDP), b"\0")


def read(protocol: str, udp_payload: bytes, source: str) -> Question | None:
    """None for whatever is no question in that format."""
    start = len(_HEADERS[protocol]) + len(_ETHERNET)
    if not udp_payload.startswith(_HEADERS[protocol] + _ETHERNET):
        return None
    if len(udp_payload) < start + _QUESTION.size:
        return None
    magic, nonce, side, size = _QUESTION.unpack_from(udp_payload, start)
    return Question(nonce, side, size, source) if magic == MAGIC else None


@attrs.frozen(kw_only=True)
class Direction:
    """What came of the questions that went one way."""

    protocol: str
    source: str
    target: str
    """`address:port`."""
    arrived: tuple[int, ...]
    """Sizes."""
    seen_source: str | None
    """From where they came, as the receiver saw it."""


def judge(up: Direction, down: Direction, *, mtu: int, version: int) -> tuple[Check, ...]:
    """`up`: from us to the other side. `mtu`: of our interface."""
    port = Check.of(
        "tunnel-port",
        (fault for direction in (up, down) for fault in _faults(direction)),
        f"{up.protocol} from {up.source} reaches {up.target}, {down.protocol} from {down.source} "
        f"reaches {down.target}",
    )
    return (port, _path_mtu(up, down, mtu, version)) if port.ok else (port,)


def _faults(way: Direction) -> Iterable[Fault]:
    if not way.arrived:
        port = way.target.rpartition(":")[2]
        yield Fault(
            f"no {way.protocol} datagram from {way.source} reaches {way.target}",
            f"open {port}/udp between the hosts, in both directions",
        )
    elif way.seen_source != way.source:
        yield Fault(
            f"{way.protocol} from {way.source} arrives as if from {way.seen_source}",
            "take the address translation (NAT) between the hosts away",
        )


def _path_mtu(up: Direction, down: Direction, mtu: int, version: int) -> Check:
    passes = min(max(up.arrived), max(down.arrived))
    overhead = smallest(version) - SMALLEST_INNER
    if passes < smallest(version):
        return Check(
            check="path-mtu",
            ok=False,
            evidence=f"{passes} bytes pass, IPv6 endpoints need {smallest(version)}",
            fix="raise the MTU of the hops between the hosts",
        )
    return Check(
        check="path-mtu",
        ok=True,
        evidence=f"{passes} bytes pass both ways (our interface: {mtu}), so endpoints get "
        f"{passes - overhead}",
    )
