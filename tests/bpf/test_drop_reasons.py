"""One packet for each reason to refuse one: the verdict, the counter, the event's C line."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import attrs
import pytest

from meshnet.dataplane import bpf
from meshnet.dataplane.abi import DropReason, Stage
from meshnet.dataplane.artifact import SOURCE
from meshnet.dataplane.schema import Sizes, schema
from meshnet.model.dataplane import IpcacheRow, Mode, Modes, PolicyKey
from meshnet.model.policy import Direction
from meshnet.model.ruling import PortRow, Verdict
from tests.support.asking import SERVICE_REFUSED
from tests.support.bpf import API, REDIRECT, SHOT, WEB, Node, config, endpoint, node
from tests.support.odd_packets import NATIVE_GRE, ODD
from tests.support.packets import (
    ETH_ARP,
    ETH_IPV4,
    ETH_VLAN,
    Packet,
    extension,
    frame,
    geneve_frame,
    ip,
    tcp,
    udp,
    vxlan,
    vxlan_frame,
)
from tests.support.world import NAT_REFUSED

pytestmark = pytest.mark.bpf

UNREACHABLE = {
    DropReason.NONE: "is no refusal",
    DropReason.DECAPSULATION_FAILED: "the headers were read before, so only a kernel without "
    "memory, or without BPF_F_ADJ_ROOM_DECAP_L3 (6.3), answers so",
    DropReason.NO_ROOM: "only a kernel without memory answers so",
    DropReason.NAT_FAILED: "only a kernel without memory answers so",
}
"""Reasons that no packet can be made for."""


def web(
    destination: str = "10.2.0.10",
    source: str = "10.1.0.10",
    *,
    to_port: int = 53,
    size: int = 5,
    **more: object,
) -> bytes:
    payload = udp(4000, to_port, bytes(size))
    return frame(ip(source, destination, payload, **more))  # type: ignore[arg-type]


def tunnelled(
    *,
    vni: int = API,
    outer: str = "192.0.2.2",
    source: str = "10.2.0.10",
    destination: str = "10.1.0.10",
    inner: bytes | None = None,
    **more: object,
) -> bytes:
    plain = frame(ip(source, destination, udp(4000, 53), **more))  # type: ignore[arg-type]
    return vxlan_frame(outer, "192.0.2.1", vni=vni, inner=inner or plain)


def native(source: str = "10.2.0.10", destination: str = "10.1.0.10", **more: int) -> bytes:
    return frame(ip(source, destination, udp(4000, 53), **more))


def native_extensions() -> bytes:
    return frame(ip("fd00:10:2::10", "fd00:10:1::10", FIVE_EXTENSIONS))


def in_geneve(*, vni: int = API, **more: object) -> bytes:
    inner = frame(ip("10.2.0.10", "10.1.0.10", udp(4000, 53)))
    return geneve_frame("192.0.2.2", "192.0.2.1", vni=vni, inner=inner, **more)


def wrong_geneve(head: bytes) -> bytes:
    data = head + bytes(60)
    return frame(ip("192.0.2.2", "192.0.2.1", udp(50000, 6081, data)))


def nothing(_: Node) -> None:
    """No other state than the usual."""


@attrs.frozen
class Case:
    reason: DropReason
    program: str
    frame: bytes
    before: Callable[[Node], None] = nothing
    gso_size: int = 0
    after: Callable[[Node], None] = nothing


def _forget_endpoint(east: Node) -> None:
    east.map("endpoints").delete(struct.pack("=I", east.web))


def _not_ready(east: Node) -> None:
    east.dataplane.attach_endpoint(endpoint("web", 10, WEB, ready=False))


def _forget_node(east: Node) -> None:
    east.dataplane.update_nodes({}, [ip_address("192.0.2.2")])


def _without_underlay_ipv6(east: Node) -> None:
    east.dataplane.configure(config(underlay_ipv6=None))


def _without_underlay_ipv4(east: Node) -> None:
    east.dataplane.configure(config(underlay_ipv4=None))


def _stages(east: Node) -> bpf.Map:
    (generation,) = east.directory.glob("gen-*")
    fd = bpf.open_pin(generation / "stages")
    assert fd is not None
    return bpf.Map(fd, next(spec for spec in schema(Sizes.lab()) if spec.name == "stages"))


def _without_deliver_local(east: Node) -> None:
    stages = _stages(east)
    assert stages.delete(struct.pack("=I", Stage.DELIVER_LOCAL))
    stages.close()


def _with_deliver_local(east: Node) -> None:
    """Others use the same programs after this test."""
    stages, program = _stages(east), east.program("deliver_local")
    stages.update(struct.pack("=I", Stage.DELIVER_LOCAL), struct.pack("=I", program))
    stages.close()
    os.close(program)


def _own_address_of_nobody(east: Node) -> None:
    row = IpcacheRow(identity=WEB, node=ip_address("192.0.2.1"))
    east.dataplane.update_ipcache({ip_network("10.1.0.99/32"): row}, ())


def _on_the_way_to_west(east: Node) -> None:
    (index,) = (
        row["node_index"] for row in east.dataplane.dump("nodes") if row["address"] == "192.0.2.2"
    )
    east.set_scratch(node_index=index, hops=64)


def _accept_native(east: Node) -> None:
    east.dataplane.configure(config(accept_native=True))


def _claim_of_another_cluster(east: Node) -> None:
    """Rows that do not fit the node they name: a wrong cluster, a foreign prefix, a node's own
    address that is none."""
    _accept_native(east)
    there = ip_address("192.0.2.2")
    rows = {
        "10.2.0.12/32": IpcacheRow(identity=3 << 16 | 400, node=there),
        "10.9.0.1/32": IpcacheRow(identity=API, node=there),
        "10.2.0.13/32": IpcacheRow(identity=6, node=there),
    }
    east.dataplane.update_ipcache({ip_network(key): row for key, row in rows.items()}, ())


def _send_native(east: Node) -> None:
    modes = Modes(ipv4=Mode.NATIVE, ipv6=Mode.NATIVE)
    row = node("192.0.2.2", 2, modes=modes)
    east.dataplane.update_nodes({row.address: row}, ())


def raw(header: bytes, length: int = 40) -> bytes:
    return frame(Packet(ETH_IPV4, header.ljust(length, b"\0")))


SHORT_HEADER = b"\x44\0\0\x14" + bytes(16)
WRONG_VERSION = b"\x55\0\0\x14" + bytes(16)
LONGER_THAN_IT_IS = b"\x45\0\x01\0" + bytes(16)
FIVE_EXTENSIONS = extension(extension(extension(extension(extension(udp(1, 2))))))

R = DropReason
TOLD = {R.PACKET_TOO_BIG, R.TTL_EXCEEDED, R.SERVICE_NO_BACKEND}
"""The sender gets an ICMP error."""
DENY_UDP = PortRow(40, 17, 0, Verdict.DENY, 7)


def _policy(*rows: PortRow) -> Callable[[Node], None]:
    """web has a policy with this one class, in both directions."""

    def select(east: Node) -> None:
        keys = {PolicyKey(5, direction, 0): 9 for direction in Direction}
        east.dataplane.write_policy({9: rows}, keys)
        east.dataplane.update_endpoint(endpoint("web", 10, WEB, policy_id=5))

    return select


CASES = [
    Case(R.UNKNOWN_ENDPOINT, "from_endpoint", web(), _forget_endpoint),
    Case(R.INVALID_SOURCE, "from_endpoint", web(source="10.1.0.11")),
    Case(R.INVALID_SOURCE, "from_endpoint", web("fd00:10:2::10", "fd00:10:1::11")),
    Case(R.INVALID_SOURCE, "from_endpoint", web("fd00:10:2::10", "::")),
    Case(R.INVALID_SOURCE, "from_endpoint", web("fd00:10:2::10", "fe80::1")),
    Case(R.INVALID_SOURCE, "to_tunnel", web(source="192.0.2.1")),
    Case(R.UNSUPPORTED_L3, "from_endpoint", frame(Packet(ETH_VLAN, bytes(46)))),
    Case(R.UNSUPPORTED_L3, "from_underlay", tunnelled(inner=frame(Packet(ETH_ARP, bytes(28))))),
    Case(R.TRUNCATED, "from_endpoint", raw(LONGER_THAN_IT_IS)),
    Case(R.TRUNCATED, "from_underlay", tunnelled(inner=raw(b"\x45\0\0\x14", 16))),
    Case(R.MALFORMED, "from_endpoint", raw(SHORT_HEADER)),
    Case(R.MALFORMED, "from_endpoint", raw(WRONG_VERSION)),
    Case(R.MALFORMED, "from_endpoint", web("fd00:10:2::10", "::ffff:10.1.0.10")),
    Case(R.MALFORMED, "from_underlay", tunnelled(inner=raw(WRONG_VERSION))),
    Case(
        R.EXTENSION_HEADERS,
        "from_endpoint",
        frame(ip("fd00:10:1::10", "fd00:10:2::10", FIVE_EXTENSIONS)),
    ),
    Case(
        R.NESTED_ENCAPSULATION,
        "from_endpoint",
        frame(ip("10.1.0.10", "192.0.2.2", udp(1, 8472, vxlan(API, bytes(60))))),
    ),
    Case(
        R.NESTED_ENCAPSULATION,
        "from_endpoint",
        frame(ip("fd00:10:1::10", "2001:db8::2", extension(udp(1, 8472, bytes(60))))),
    ),
    Case(R.UNKNOWN_DESTINATION, "from_endpoint", web("10.2.0.99")),
    Case(R.UNKNOWN_DESTINATION, "from_endpoint", web("fd00:10:2::99", "fd00:10:1::10")),
    Case(R.UNKNOWN_DESTINATION, "from_endpoint", web("10.1.0.99"), _own_address_of_nobody),
    Case(R.UNKNOWN_DESTINATION, "to_tunnel", web("10.2.0.99", "10.1.0.1")),
    Case(R.UNKNOWN_NODE, "from_endpoint", web(), _forget_node),
    Case(R.UNKNOWN_NODE, "to_tunnel", web("10.2.0.10", "10.1.0.1"), _forget_node),
    Case(R.NO_UNDERLAY_ADDRESS, "from_endpoint", web("10.2.0.11"), _without_underlay_ipv6),
    Case(R.NO_UNDERLAY_ADDRESS, "from_endpoint", web("10.2.0.10"), _without_underlay_ipv4),
    Case(
        R.PACKET_TOO_BIG,
        "from_endpoint",
        frame(ip("10.1.0.10", "10.2.0.10", udp(1, 2, bytes(1423)), fragment=0x4000)),
    ),
    Case(
        R.PACKET_TOO_BIG,
        "from_endpoint",
        frame(ip("10.1.0.10", "10.2.0.10", tcp(1, 2, bytes(2000)), fragment=0x4000)),
        gso_size=1411,
    ),
    Case(
        R.ENCAPSULATION_FAILED,
        "encapsulate",
        frame(Packet(ETH_ARP, bytes([64] * 46))),
        _on_the_way_to_west,
    ),
    Case(
        R.TAIL_CALL_MISSED,
        "from_endpoint",
        web("10.1.0.11"),
        _without_deliver_local,
        after=_with_deliver_local,
    ),
    Case(R.TTL_EXCEEDED, "from_endpoint", web("10.1.0.11", ttl=1)),
    Case(R.TTL_EXCEEDED, "from_endpoint", web("fd00:10:1::11", "fd00:10:1::10", ttl=1)),
    Case(R.ENDPOINT_NOT_READY, "from_endpoint", web(), _not_ready),
    Case(R.ENDPOINT_NOT_READY, "from_underlay", tunnelled(), _not_ready),
    Case(
        R.OUTER_TRUNCATED, "from_underlay", frame(ip("192.0.2.2", "192.0.2.1", udp(1, 8472, b"")))
    ),
    Case(
        R.OUTER_MALFORMED,
        "from_underlay",
        frame(ip("192.0.2.2", "192.0.2.1", udp(1, 8472, vxlan(API, web(), flags=0)))),
    ),
    Case(R.NO_TUNNEL_KEY, "from_tunnel", web("10.1.0.10", "10.2.0.10")),
    Case(R.UNKNOWN_OUTER_SOURCE, "from_underlay", tunnelled(outer="192.0.2.99")),
    Case(R.UNKNOWN_OUTER_SOURCE, "from_underlay", tunnelled(outer="192.0.2.1")),
    Case(R.UNKNOWN_OUTER_SOURCE, "from_underlay", tunnelled(), _forget_node),
    Case(R.FOREIGN_IDENTITY, "from_underlay", tunnelled(vni=3 << 16 | 400)),
    Case(R.FOREIGN_IDENTITY, "from_underlay", tunnelled(vni=WEB)),
    Case(R.INVALID_IDENTITY, "from_underlay", tunnelled(vni=0)),
    Case(R.INVALID_IDENTITY, "from_underlay", tunnelled(vni=9)),
    Case(R.SOURCE_NOT_OF_NODE, "from_underlay", tunnelled(source="10.3.0.10")),
    Case(R.SOURCE_NOT_OF_NODE, "from_underlay", tunnelled(source="10.1.0.11")),
    Case(
        R.SOURCE_NOT_OF_NODE,
        "from_underlay",
        tunnelled(source="fd00:10:3::10", destination="fd00:10:1::10"),
    ),
    Case(R.IDENTITY_HOST, "from_underlay", tunnelled(vni=1)),
    Case(R.IDENTITY_WORLD, "from_underlay", tunnelled(vni=2)),
    Case(R.IDENTITY_HEALTH, "from_underlay", tunnelled(vni=4)),
    Case(R.IDENTITY_INGRESS, "from_underlay", tunnelled(vni=8)),
    Case(R.REMOTE_NODE_SOURCE, "from_underlay", tunnelled(vni=6)),
    *(Case(*odd) for odd in (*ODD, *NAT_REFUSED, *SERVICE_REFUSED)),
    Case(R.NOT_OURS, "from_underlay", tunnelled(destination="10.1.0.99")),
    Case(R.NOT_OURS, "from_underlay", tunnelled(destination="192.0.2.1")),
    Case(R.NOT_OURS, "from_underlay", native(destination="10.1.0.99"), _accept_native),
    Case(R.NESTED_ENCAPSULATION, "from_endpoint", web("192.0.2.2", to_port=6081)),
    Case(R.OUTER_MALFORMED, "from_underlay", in_geneve(flags=0x80)),
    Case(R.OUTER_MALFORMED, "from_underlay", wrong_geneve(b"\0\0\x08\0")),
    Case(R.OUTER_MALFORMED, "from_underlay", wrong_geneve(b"\x40\0\x65\x58")),
    Case(R.OUTER_TRUNCATED, "from_underlay", wrong_geneve(b"\x3f\0\x65\x58")),
    Case(R.GENEVE_OPTION, "from_underlay", in_geneve(flags=0x40, options=bytes(8))),
    Case(R.FOREIGN_IDENTITY, "from_underlay", in_geneve(vni=WEB)),
    Case(R.NATIVE_REFUSED, "from_underlay", native()),
    Case(R.NATIVE_REFUSED, "from_underlay", native("fd00:10:2::10", "fd00:10:1::10")),
    Case(R.NATIVE_SOURCE, "from_underlay", native("10.2.0.99"), _accept_native),
    Case(R.NATIVE_SOURCE, "from_underlay", native("10.1.0.11"), _accept_native),
    Case(R.NATIVE_SOURCE, "from_underlay", native("10.2.0.12"), _claim_of_another_cluster),
    Case(R.NATIVE_SOURCE, "from_underlay", native("10.9.0.1"), _claim_of_another_cluster),
    Case(R.NATIVE_SOURCE, "from_underlay", native("10.2.0.13"), _claim_of_another_cluster),
    Case(R.EXTENSION_HEADERS, "from_underlay", native_extensions(), _accept_native),
    Case(R.NESTED_IP, "from_underlay", NATIVE_GRE, _accept_native),
    Case(R.PACKET_TOO_BIG, "from_endpoint", web(size=1473, fragment=0x4000), _send_native),
    Case(R.TTL_EXCEEDED, "from_endpoint", web(ttl=1), _send_native),
    Case(
        R.TTL_EXCEEDED, "from_endpoint", web("fd00:10:2::10", "fd00:10:1::10", ttl=1), _send_native
    ),
    Case(R.UNKNOWN_NODE, "send_native", web()),
    Case(R.FRAGMENT_WITHOUT_FIRST, "from_endpoint", web(fragment=0x00B9)),
    Case(R.FRAGMENT_WITHOUT_FIRST, "from_underlay", tunnelled(fragment=0x00B9)),
    Case(R.FRAGMENT_WITHOUT_FIRST, "from_underlay", native(fragment=0x00B9), _accept_native),
    Case(R.POLICY_DEFAULT_DENY, "from_endpoint", web(), _policy()),
    Case(R.POLICY_DEFAULT_DENY, "from_underlay", tunnelled(), _policy()),
    Case(R.POLICY_DENIED, "from_endpoint", web(), _policy(DENY_UDP)),
    Case(R.POLICY_DENIED, "from_underlay", tunnelled(), _policy(DENY_UDP)),
]


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case.reason.name}-{place}" for place, case in enumerate(CASES)]
)
def test_a_refused_packet_has_one_reason_one_count_and_an_event_of_its_line(
    east: Node, case: Case
) -> None:
    case.before(east)
    hook = {"from_underlay": east.underlay, "from_tunnel": east.tunnel, "to_tunnel": east.tunnel}
    egress = case.program in ("from_endpoint", "encapsulate", "to_tunnel", "send_native")
    # deliver_local's is on the way to an endpoint
    egress &= case.reason is not R.TTL_EXCEEDED or case.before is _send_native
    direction = "egress" if egress else "ingress"

    done = east.send(
        case.program, case.frame, hook.get(case.program, east.web), gso_size=case.gso_size
    )
    case.after(east)

    assert done.verdict == (REDIRECT if case.reason in TOLD else SHOT)
    assert east.drops() == {f"{case.reason.name} {direction}": 1}
    event = east.one_event()
    assert (event.reason, event.direction) == (case.reason.name, direction)
    (file,) = [path for path in SOURCE.rglob(event.file) if "abi" not in path.parts]
    line = file.read_text().splitlines()[event.line - 1]
    assert f"DROP_{case.reason.name}" in line, f"{event.file}:{event.line} says {line!r}"


def test_every_reason_has_a_packet() -> None:
    assert {case.reason for case in CASES} | UNREACHABLE.keys() == set(DropReason)


def test_every_refusal_in_the_source_has_a_packet_or_a_cause_why_not() -> None:
    """A reason that nothing gives is a lie in the documentation."""
    text = "".join(path.read_text() for path in SOURCE.rglob("*.[ch]") if "abi" not in path.parts)
    given = {reason for reason in DropReason if f"DROP_{reason.name})" in text}

    assert given == set(DropReason) - {DropReason.NONE}
