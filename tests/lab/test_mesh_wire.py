"""What the underlay sees, and what it cannot make a node believe.

Captures and forgeries take place on the switch's ports: there a packet can be anybody's.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.formed import SWITCH, UNDERLAY, Mesh, Workload, network_of
from tests.support.packets import VXLAN_PORT, Read, frame, ip, udp, vxlan
from tests.support.two_nodes import capture

pytestmark = pytest.mark.lab

STRANGER = "172.31.0.99"
UDP_PORT = 5353
LAST = "the truth"

LISTEN = f"""
import socket
heard = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
heard.bind(('::', {UDP_PORT}))
print('listening', flush=True)
said = ''
while said != {LAST!r}:
    said = heard.recv(2048).decode()
    print(said, flush=True)
"""


def tunnelled(mesh: Mesh, sender: Workload, target: str) -> list[Read]:
    """What the sender's node sent through the tunnel while the sender pinged."""
    with network_of(mesh[SWITCH]), capture(sender.node) as wire:
        mesh.inside(sender, f"ping -q -c 3 -i 0.05 -W 2 {target}")
        packets = wire.udp(VXLAN_PORT)
    sent = [p for p in packets if str(p.source) == UNDERLAY[sender.node]]
    return [p for p in sent if str(p.inner.destination) == target]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("sender", "receiver"), [("web", "cache"), ("db", "api"), ("web", "api")])
def test_the_vni_on_the_underlay_is_the_senders_identity_with_its_cluster_id_above(
    mesh: Mesh, workloads: dict[str, Workload], sender: str, receiver: str, version: int
) -> None:
    one, other = workloads[sender], workloads[receiver]
    source, target = (one.ipv4, other.ipv4) if version == 4 else (one.ipv6, other.ipv6)
    packets = tunnelled(mesh, one, target)
    assert len(packets) == 3
    for packet in packets:
        assert packet.ports[1] == VXLAN_PORT == 8472
        assert str(packet.destination) == UNDERLAY[other.node]
        assert str(packet.inner.source) == source
        assert packet.vni == one.identity
        assert packet.vni >> 16 == {"east": 1, "west": 2}[one.cluster]


@contextlib.contextmanager
def hearing(mesh: Mesh, endpoint: Workload) -> Iterator[subprocess.Popen[str]]:
    """An endpoint that prints every datagram it gets, up to the last word."""
    argv = ["meshnet", "exec", endpoint.name, "--", "python3", "-c", LISTEN]
    listener = subprocess.Popen(mesh[endpoint.node].argv(argv), stdout=subprocess.PIPE, text=True)
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n"
        yield listener
    finally:
        listener.terminate()
        listener.communicate(timeout=10)


def forgeries(ours: dict[str, Workload]) -> list[tuple[str, str, int, str, str]]:
    """(reason, outer source, VNI, inner source, inner destination), to west-2 and `cache`."""
    web, api, db, cache = (ours[name] for name in ("web", "api", "db", "cache"))
    east, west = UNDERLAY["east-1"], UNDERLAY["west-2"]
    return [
        ("UNKNOWN_OUTER_SOURCE", STRANGER, web.identity, web.ipv4, cache.ipv4),
        ("UNKNOWN_OUTER_SOURCE", west, web.identity, web.ipv4, cache.ipv4),
        ("FOREIGN_IDENTITY", east, db.identity, web.ipv4, cache.ipv4),
        ("FOREIGN_IDENTITY", east, 3 << 16 | 300, web.ipv4, cache.ipv4),
        ("INVALID_IDENTITY", east, 0, web.ipv4, cache.ipv4),
        ("INVALID_IDENTITY", east, 17, web.ipv4, cache.ipv4),
        ("IDENTITY_HOST", east, 1, web.ipv4, cache.ipv4),
        ("IDENTITY_WORLD", east, 2, "198.51.100.7", cache.ipv4),
        ("REMOTE_NODE_SOURCE", east, 6, web.ipv4, cache.ipv4),
        ("SOURCE_NOT_OF_NODE", east, web.identity, api.ipv4, cache.ipv4),
        ("SOURCE_NOT_OF_NODE", east, web.identity, db.ipv4, cache.ipv4),
        ("SOURCE_NOT_OF_NODE", east, web.identity, api.ipv6, cache.ipv6),
        ("IDENTITY_HEALTH", east, 4, web.ipv4, cache.ipv4),
        ("IDENTITY_INGRESS", east, 8, web.ipv6, cache.ipv6),
        ("MARTIAN_SOURCE", east, web.identity, "127.0.0.1", cache.ipv4),
        ("MARTIAN_SOURCE", east, web.identity, "ff02::1", cache.ipv6),
        ("MARTIAN_DESTINATION", east, web.identity, web.ipv4, "127.0.0.1"),
        ("NOT_OURS", east, web.identity, web.ipv4, db.ipv4),
    ]


def test_forged_tunnel_packets_are_refused_by_their_reason_and_never_reach_the_endpoint(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    """The last packet is true: it arrives, so the others could have."""
    web, cache = workloads["web"], workloads["cache"]
    forged = forgeries(workloads)
    truth = ("", UNDERLAY["east-1"], web.identity, web.ipv4, cache.ipv4)
    mac = json.loads(mesh.run("west-2", "ip", "-j", "link", "show", "eth1"))[0]["address"]
    before = mesh.drops("west-2")
    with network_of(mesh[SWITCH]):
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        port.bind(("west-2", 0))
    with port, hearing(mesh, cache) as listener:
        for reason, outer, vni, source, target in [*forged, truth]:
            words = (reason or LAST).encode()
            inner = frame(ip(source, target, udp(4000, UDP_PORT, words)))
            packet = ip(outer, UNDERLAY["west-2"], udp(50000, VXLAN_PORT, vxlan(vni, inner)))
            port.send(frame(packet, to=mac.replace(":", "")))
        heard, _ = listener.communicate(timeout=10)
    assert heard == f"{LAST}\n"
    counts = mesh.drops("west-2")
    more = {reason: counts[reason] - before.get(reason, 0) for reason in counts}
    expected = [reason for reason, *_ in forged]
    assert {r: n for r, n in more.items() if n} == {r: expected.count(r) for r in expected}


def test_an_endpoint_cannot_send_from_an_address_that_is_not_its_own(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    mesh.start("east-1", "liar")
    try:
        liar, victim, other = (
            mesh.workload("east-1", "liar"),
            workloads["web-too"],
            workloads["cache"],
        )
        before = mesh.drops("east-1").get("INVALID_SOURCE", 0)
        # 10.9.9.9 is nobody's; the others are of the endpoint next to it
        for source, target in (
            ("10.9.9.9", other.ipv4),
            (victim.ipv4, other.ipv4),
            (victim.ipv6, other.ipv6),
            (victim.ipv4, workloads["web"].ipv4),
        ):
            lying = (
                f"ip addr replace {source} dev eth0; "
                f"ping -q -c 2 -i 0.05 -w 1 -I {source} {target}; "
                f"ip addr del {source} dev eth0; true"
            )
            assert " 0 received" in mesh.inside(liar, lying)
        # IPv6 finds out by itself whether an address is taken: more than what we sent
        assert mesh.drops("east-1")["INVALID_SOURCE"] - before >= 8
        assert "2 received" in mesh.inside(liar, f"ping -q -c 2 -i 0.05 -W 2 {other.ipv4}")
    finally:
        mesh.stop("east-1", "liar")
