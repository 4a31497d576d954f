"""Thousands of damaged packets: none is accepted that the rules in plain Python refuse.

The programs are loaded once; each packet is one BPF_PROG_TEST_RUN. What comes first, the
reasons' order, is not compared, since a packet with two faults has two right answers.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from meshnet.dataplane.abi import DropReason
from meshnet.dataplane.memory import Fate, MemoryDataplane
from tests.bpf.test_model import twin
from tests.bpf.test_wellformed import fragment6
from tests.support.bpf import API, NOT_OURS, OK, REDIRECT, SHOT, Node
from tests.support.packets import (
    HOPOPTS,
    ROUTER_ALERT,
    Payload,
    extension,
    frame,
    ip,
    tcp,
    udp,
    vxlan_frame,
)
from tests.support.packets import read as taken_apart
from tests.support.wellformed import Firsts, Parsed, Refused, parse

pytestmark = pytest.mark.bpf

ROUNDS = 4000
TO_EAST, TO_EAST_V6 = ("10.2.0.10", "10.1.0.10"), ("fd00:10:2::10", "fd00:10:1::10")
PAYLOADS = [udp(4000, 53), tcp(4000, 80, b"GET /"), Payload(47, bytes(24)), udp(1, 8472, bytes(50))]
INTERESTING = [0, 1, 2, 4, 5, 6, 7, 8, 17, 20, 40, 41, 43, 44, 47, 60, 127, 131, 137, 148, 224, 255]


def seeds(source: str, other: str, gateway: str) -> Iterator[bytes]:
    """Right packets of every kind, from one address to another and to the node itself."""
    for payload in PAYLOADS:
        yield frame(ip(source, other, payload))
        yield frame(ip(source, gateway, payload))
        if ":" in source:
            yield frame(ip(source, other, extension(payload, kind=HOPOPTS)))
            yield frame(ip(source, other, fragment6(Payload(payload.protocol, bytes(16)), 0x19)))
        else:
            yield frame(ip(source, other, payload, options=ROUTER_ALERT))
            whole = Payload(payload.protocol, payload.data.ljust(32, b"\0")[:32])
            yield frame(ip(source, other, whole, fragment=0x2000))


def mutated(rng: random.Random, packet: bytes, first: int) -> bytes:
    """One to three bytes from `first` on are others, or the end is not where it was."""
    data = bytearray(packet)
    for _ in range(rng.randint(1, 3)):
        place = min(rng.randrange(first, first + 64), len(data) - 1)
        data[place] = rng.choice([rng.randrange(256), *INTERESTING])
    if rng.random() < 0.25:
        del data[max(first + 1, len(data) - rng.randrange(1, 40)) :]
    if rng.random() < 0.1:
        data += bytes(rng.randrange(1, 32))
    return bytes(data)


def reads(packet: bytes) -> Parsed | DropReason:
    if len(packet) < 14:
        return DropReason.TRUNCATED
    try:
        return parse(*struct.unpack_from("!H", packet, 12), packet[14:])
    except Refused as refused:
        return refused.reason


def is_tunnel(parsed: Parsed, fate: Fate, memory: MemoryDataplane) -> bool:
    """Must be refused where it leaves the mesh or ends in a node's stack."""
    if fate.way != "stack":
        return False
    if parsed.protocol == 17 and parsed.ports is not None and parsed.ports[1] in (8472, 6081):
        return True
    nodes = {*memory.nodes(), *memory._own()}
    return parsed.protocol in (4, 41, 47) and parsed.destination in nodes


def is_told(answer: bytes) -> bool:
    """ICMP "time exceeded", from the gateway."""
    kinds = {"10.1.0.1": 11, "fd00:10:1::1": 3}
    got = taken_apart(answer)
    return kinds.get(str(got.source)) == got.payload[0]


def test_what_an_endpoint_sends_damaged(east: Node) -> None:
    memory, rng, seen, firsts = twin(east), random.Random(6), Counter[str](), Firsts()
    known = [
        *seeds("10.1.0.10", "10.2.0.10", "10.1.0.1"),
        *seeds("fd00:10:1::10", "fd00:10:2::10", "fd00:10:1::1"),
    ]
    for _ in range(ROUNDS):
        packet = mutated(rng, rng.choice(known), 12)
        ether_type = int.from_bytes(packet[12:14], "big")
        least = {0x0800: 20, 0x86DD: 40}.get(ether_type, 1)
        if ether_type == 0x0806 or len(packet) < 14 + least:
            continue  # ARP passes; the kernel makes no test packet without its IP header
        done, read = east.from_web(packet), reads(packet)
        if isinstance(read, DropReason):
            assert done.verdict == SHOT, f"{read.name} was accepted: {packet.hex()}"
            seen[read.name] += 1
            continue
        fate = memory.from_endpoint(east.web, read.source, read.destination)
        lost = fate.reason is not DropReason.INVALID_SOURCE and firsts.lacks(read)
        refused = fate.way == "drop" or lost or is_tunnel(read, fate, memory)
        if not refused and fate.way != "stack" and packet[22 if ether_type == 0x0800 else 21] <= 1:
            assert done.verdict == SHOT or is_told(done.packet), packet.hex()
            seen["expired"] += 1
            continue
        assert (done.verdict == SHOT) == refused, f"{fate} {east.drops()} {packet.hex()}"
        seen["refused" if done.verdict == SHOT else "accepted"] += 1
    assert_all_was_met(seen)


@pytest.mark.parametrize("outer", [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")])
def test_what_arrives_damaged_in_the_tunnel(east: Node, outer: tuple[str, str]) -> None:
    memory, rng, seen, firsts = twin(east), random.Random(7), Counter[str](), Firsts()
    known = [*seeds(*TO_EAST, "10.1.0.1"), *seeds(*TO_EAST_V6, "fd00:10:1::1")]
    for _ in range(ROUNDS):
        inner = mutated(rng, rng.choice(known), 12)
        vni = rng.choice([API] * 8 + [6, 4, 8, API ^ 1 << rng.randrange(24)])
        done, read = east.from_underlay(vxlan_frame(*outer, vni=vni, inner=inner)), reads(inner)
        assert done.verdict != NOT_OURS
        if isinstance(read, DropReason):
            assert done.verdict == SHOT, f"{read.name} was accepted: {inner.hex()}"
            seen[read.name] += 1
            continue
        fate = memory.from_underlay(ip_address(outer[0]), vni, read.source, read.destination)
        lost = fate.way == "local" and firsts.lacks(read)
        refused = fate.way == "drop" or lost or is_tunnel(read, fate, memory)
        ends_here = inner[22 if inner[12:14] == b"\x08\0" else 21] <= 1 and fate.way == "local"
        expected = SHOT if refused or ends_here else {"local": REDIRECT, "stack": OK}[fate.way]
        assert done.verdict == expected, f"{fate} {east.drops()} {vni:#x} {inner.hex()}"
        seen["refused" if done.verdict == SHOT else "accepted"] += 1
    assert_all_was_met(seen)


def test_what_is_damaged_outside(east: Node) -> None:
    """The outer headers: never more than a true packet is unpacked, and never less of it."""
    rng, seen = random.Random(8), Counter[int]()
    inner = frame(ip(*TO_EAST, udp(4000, 53, b"truth")))
    sound = vxlan_frame("192.0.2.2", "192.0.2.1", vni=API, inner=inner)
    for _ in range(ROUNDS):
        packet = mutated(rng, sound, 12)
        done = east.from_underlay(packet)
        seen[done.verdict] += 1
        if done.verdict == NOT_OURS:
            assert done.packet == packet
        if done.verdict in (OK, REDIRECT):
            start = 14 + 20 + 8 + 8 + 14
            (told,) = struct.unpack_from("!H", packet, 38)
            assert packet[26:34] == sound[26:34], "from west to east"
            assert packet[36:38] == sound[36:38] and packet[42] & 8, "VXLAN with a VNI"
            assert isinstance(reads(frame_of(packet[start:])), Parsed)
            assert 34 + told <= len(packet)
    assert min(seen[SHOT], seen[NOT_OURS], seen[REDIRECT]) > ROUNDS // 100, seen


def frame_of(packet: bytes) -> bytes:
    return bytes(12) + (b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def assert_all_was_met(seen: Counter[str]) -> None:
    """A seed under which a rule never applies would prove nothing."""
    wanted = {
        *("accepted", "refused", "TRUNCATED", "MALFORMED", "L4_TRUNCATED", "L4_MALFORMED"),
        *("SOURCE_ROUTE", "IPV4_OPTION", "BAD_FRAGMENT", "MARTIAN_SOURCE", "MARTIAN_DESTINATION"),
    }
    assert wanted <= seen.keys(), wanted - seen.keys()
