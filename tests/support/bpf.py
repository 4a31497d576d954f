"""A dataplane of the real loader in a network namespace and a bpffs of its own.

The node under test is east-1 (cluster 1). It has two endpoints; west-1 (cluster 2) is
another node of the mesh, with an IPv4 and an IPv6 underlay address.

    web  10.1.0.10  fd00:10:1::10  ── east-1 ══ underlay ══ west-1 ── api  10.2.0.10  fd00:10:2::10
    db   10.1.0.11  fd00:10:1::11     192.0.2.1             192.0.2.2
                                      2001:db8::1           2001:db8::2
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import if_nametoindex
from typing import Any

import attrs

from meshnet.dataplane import abi, artifact, bpf, programs
from meshnet.dataplane.kernel import KernelDataplane
from meshnet.dataplane.schema import MapType, Sizes, possible_cpus
from meshnet.model.dataplane import DropEvent, EndpointRow, IpcacheRow, NodeConfig, NodeRow

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000

OK, SHOT, REDIRECT, NOT_OURS = 0, 2, 7, -1
"""TC_ACT_OK, TC_ACT_SHOT, TC_ACT_REDIRECT, TC_ACT_UNSPEC."""

GATEWAY_MAC = "020000000001"
WEB, DB, API = 1 << 16 | 300, 1 << 16 | 301, 2 << 16 | 400
CACHE = Path(__file__).resolve().parents[2] / "build" / "bytecode"


def run(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@contextlib.contextmanager
def network_namespace() -> Iterator[None]:
    """This thread in a fresh one; it goes with the last thing in it."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(_libc.unshare(CLONE_NEWNET))
        run("ip link set lo up")
        yield
    finally:
        _check(_libc.setns(before, CLONE_NEWNET))
        os.close(before)


@contextlib.contextmanager
def bpf_file_system(directory: Path) -> Iterator[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    run(f"mount -t bpf bpf {directory}")
    try:
        yield directory
    finally:
        run(f"umount {directory}")


@cache
def built() -> artifact.Artifact:
    """This source's bytecode, compiled once a session at most."""
    return artifact.find(CACHE)


def config(**changes: Any) -> NodeConfig:
    """Needs `make_links` in the current namespace."""
    values: dict[str, Any] = {
        "cluster_id": 1,
        "underlay_ifindex": if_nametoindex("underlay"),
        "vxlan_ifindex": if_nametoindex("meshnet"),
        "underlay_ipv4": ip_address("192.0.2.1"),
        "underlay_ipv6": ip_address("2001:db8::1"),
        "pod_cidrs": (ip_network("10.1.0.0/24"), ip_network("fd00:10:1::/112")),
        "gateway_ipv4": ip_address("10.1.0.1"),
        "gateway_ipv6": ip_address("fd00:10:1::1"),
        "gateway_mac": ":".join(GATEWAY_MAC[i : i + 2] for i in range(0, 12, 2)),
    }
    return NodeConfig(**{**values, **changes})


def node(address: str, cluster: int, **changes: Any) -> NodeRow:
    """Node 1 of a cluster: 10.<cluster>.0.0/24 and fd00:10:<cluster>::/112."""
    values: dict[str, Any] = {
        "address": ip_address(address),
        "cluster_id": cluster,
        "pod_cidrs": (
            ip_network(f"10.{cluster}.0.0/24"),
            ip_network(f"fd00:10:{cluster}::/112"),
        ),
        "gateways": (ip_address(f"10.{cluster}.0.1"), ip_address(f"fd00:10:{cluster}::1")),
        "health": (ip_address(f"10.{cluster}.0.2"),),
        "ingress": (ip_address(f"10.{cluster}.0.3"), ip_address(f"fd00:10:{cluster}::3")),
    }
    return NodeRow(**{**values, **changes})


def endpoint(ifname: str, number: int, identity: int, **changes: Any) -> EndpointRow:
    values: dict[str, Any] = {
        "ifindex": if_nametoindex(ifname),
        "endpoint_id": number,
        "identity": identity,
        "addresses": (ip_address(f"10.1.0.{number}"), ip_address(f"fd00:10:1::{number}")),
        "mac": f"02:00:00:00:01:{number}",
    }
    return EndpointRow(**{**values, **changes})


def make_links() -> None:
    run("ip link add underlay type veth peer name wire")
    run("ip link add meshnet type vxlan external dstport 8472 nolearning")
    for name in ("web", "db"):
        run(f"ip link add {name} type veth peer name {name}-eth0")


@attrs.frozen
class Outcome:
    verdict: int
    packet: bytes


class Node:
    """east-1, its maps filled, its programs loaded; answers what they do with a packet."""

    def __init__(self, directory: Path, dataplane: KernelDataplane) -> None:
        self.directory = directory
        self.dataplane = dataplane
        self.web, self.db = if_nametoindex("web"), if_nametoindex("db")
        self.underlay, self.tunnel = if_nametoindex("underlay"), if_nametoindex("meshnet")

    def program(self, name: str) -> int:
        (generation,) = self.directory.glob("gen-*")
        fd = bpf.open_pin(generation / name)
        assert fd is not None, f"{name} is pinned"
        return fd

    def send(self, name: str, frame: bytes, ifindex: int, *, gso_size: int = 0) -> Outcome:
        """One frame through one program, as if it came by that interface."""
        context = bytearray(192)
        struct.pack_into("=I", context, 40, ifindex)
        if gso_size:
            struct.pack_into("=I", context, 164, 2)
            struct.pack_into("=I", context, 176, gso_size)
        fd = self.program(name)
        try:
            done = programs.test_run(fd, frame, bytes(context))
        finally:
            os.close(fd)
        return Outcome(done.verdict, done.packet)

    def from_web(self, frame: bytes, **more: int) -> Outcome:
        return self.send("from_endpoint", frame, self.web, **more)

    def from_underlay(self, frame: bytes) -> Outcome:
        return self.send("from_underlay", frame, self.underlay)

    def drops(self) -> dict[str, int]:
        return {f"{d.reason} {d.direction}": d.packets for d in self.dataplane.drops()}

    def counters(self) -> dict[str, int]:
        rows = self.dataplane.dump("counters")
        return {row["counter"]: row["packets"] for row in rows if row["packets"]}

    def seen(self) -> dict[tuple[int, int], int]:
        rows = self.dataplane.seen_identities()
        return {(row["endpoint_id"], row["identity"]): row["packets"] for row in rows}

    def one_event(self) -> DropEvent:
        (event,) = self.dataplane.read_events()
        return event

    def set_scratch(self, **fields: Any) -> None:
        """What an earlier stage would have left, for a stage run on its own."""
        packet = abi.Packet(**fields)
        self.map("scratch").update(bytes(4), bytes(packet) * possible_cpus())

    def map(self, name: str) -> Any:
        return self.dataplane._set.maps[name]


def fill(dataplane: KernelDataplane) -> None:
    here, there = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    rows = [node("192.0.2.1", 1, local=True), node("2001:db8::1", 1, local=True)]
    rows += [node("192.0.2.2", 2), node("2001:db8::2", 2)]
    dataplane.update_nodes({row.address: row for row in rows}, ())
    ipcache = {
        "10.1.0.10/32": IpcacheRow(identity=WEB, node=here),
        "10.1.0.11/32": IpcacheRow(identity=DB, node=here),
        "10.2.0.10/32": IpcacheRow(identity=API, node=there),
        "10.2.0.11/32": IpcacheRow(identity=API, node=ip_address("2001:db8::2")),
        "fd00:10:2::10/128": IpcacheRow(identity=API, node=there),
        "fd00:10:2::11/128": IpcacheRow(identity=API, node=ip_address("2001:db8::2")),
        "10.2.0.1/32": IpcacheRow(identity=6, node=there),
    }
    dataplane.update_ipcache({ip_network(key): row for key, row in ipcache.items()}, ())
    dataplane.attach_endpoint(endpoint("web", 10, WEB))
    dataplane.attach_endpoint(endpoint("db", 11, DB))


def empty(dataplane: KernelDataplane) -> None:
    """No row in any map, as after the first load."""
    for opened in dataplane._set.maps.values():
        if opened.spec.type in (MapType.ARRAY, MapType.PERCPU_ARRAY):
            rows = list(opened.items())
            opened.update_many((key, bytes(len(value))) for key, value in rows if any(value))
        elif opened.spec.key:
            opened.delete_many([key for key, _ in opened.items()])
    while dataplane.read_events():
        pass


@contextlib.contextmanager
def deployed(directory: Path, **changes: Any) -> Iterator[Node]:
    """east-1 in a namespace of its own, in a bpf file system; afterwards nothing is attached,
    and its descriptors are closed: the kernel frees programs one at a time, and locks up for
    good when a thousand of them are let go at once.

    What is pinned stays, so that the next one in the same directory has nothing to load.

    Args:
        changes: of its config; a directory for each, or programs are loaded every time.
    """
    with network_namespace():
        make_links()
        before = KernelDataplane(directory, built(), sizes=Sizes.lab())
        empty(before)
        before.close()  # it remembers the rows that it found
        node = Node(directory, KernelDataplane(directory, built(), sizes=Sizes.lab()))
        opened = node.dataplane
        try:
            opened.configure(config(**changes))
            fill(opened)
            yield node
        finally:
            links = node.dataplane._links
            for name in links.names():
                links.detach(name)
            opened.close()
            node.dataplane.close()
