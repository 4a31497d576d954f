"""Two nodes of two clusters on one wire, each with one endpoint, as network namespaces.

    10.1.0.10      ┌──────┐  192.0.2.1        192.0.2.2  ┌──────┐      10.2.0.10
    fd00:10:1::10 ─┤ east ├══════════════════════════════┤ west ├─ fd00:10:2::10
                   └──────┘  2001:db8::1    2001:db8::2  └──────┘

The kernel's side (links, addresses, routes) is set up here by `ip`, as meshnet.netlink does
it on a real node; the dataplane is the real one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from itertools import count
from pathlib import Path
from socket import if_nametoindex
from typing import Any

import attrs

from meshnet.dataplane.kernel import KernelDataplane
from meshnet.dataplane.schema import Sizes
from meshnet.model.dataplane import EndpointRow, IpcacheRow, Mode, Modes, NodeConfig
from tests.support.bpf import CLONE_NEWNET, GATEWAY_MAC, bpf_file_system, built, node, run
from tests.support.packets import UDP, Read, read

_runs = count()
_libc = ctypes.CDLL(None, use_errno=True)
MAC = ":".join(GATEWAY_MAC[place : place + 2] for place in range(0, 12, 2))
ENDPOINT_MAC = "02:00:00:00:02:10"


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread in a named network namespace."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert _libc.setns(there, CLONE_NEWNET) == 0, f"enter {namespace}"
        yield
    finally:
        assert _libc.setns(before, CLONE_NEWNET) == 0, "come back"
        os.close(there)
        os.close(before)


@attrs.frozen
class Host:
    """One node: its namespace, its number (cluster id and addresses), its dataplane."""

    name: str
    number: int
    pins: Path

    @property
    def endpoint(self) -> str:
        return f"{self.name}-web"

    @property
    def identity(self) -> int:
        return self.number << 16 | 300

    def dataplane(self) -> KernelDataplane:
        """The agent's part. Making another one is restarting the agent."""
        with inside(self.name):
            made = KernelDataplane(self.pins, built(), sizes=Sizes.lab())
            made.configure(self.config())
            return made

    def config(self) -> NodeConfig:
        n = self.number
        return NodeConfig(
            cluster_id=n,
            underlay_ifindex=if_nametoindex("underlay"),
            vxlan_ifindex=if_nametoindex("meshnet"),
            underlay_ipv4=ip_address(f"192.0.2.{n}"),
            underlay_ipv6=ip_address(f"2001:db8::{n}"),
            pod_cidrs=(ip_network(f"10.{n}.0.0/24"), ip_network(f"fd00:10:{n}::/112")),
            gateway_ipv4=ip_address(f"10.{n}.0.1"),
            gateway_ipv6=ip_address(f"fd00:10:{n}::1"),
            gateway_mac=MAC,
            accept_native=True,
        )

    def row(self) -> EndpointRow:
        return EndpointRow(
            ifindex=if_nametoindex("web"),
            endpoint_id=10,
            identity=self.identity,
            addresses=(
                ip_address(f"10.{self.number}.0.10"),
                ip_address(f"fd00:10:{self.number}::10"),
            ),
            mac=ENDPOINT_MAC,
        )


def _wire(east: Host, west: Host) -> None:
    run(f"ip -n {east.name} link add underlay type veth peer name underlay netns {west.name}")


def _links(host: Host) -> None:
    n, other = host.number, 3 - host.number
    ip, inner = f"ip -n {host.name}", f"ip -n {host.endpoint}"
    for command in (
        f"{ip} link set lo up",
        f"{ip} link set underlay up",
        f"{ip} addr add 192.0.2.{n}/24 dev underlay",
        f"{ip} addr add 2001:db8::{n}/64 dev underlay nodad",
        f"{ip} link add meshnet type vxlan external dstport 8472 nolearning"
        " udp6zerocsumrx udp6zerocsumtx",
        f"{ip} link set meshnet arp off addrgenmode none mtu 9000 up",
        f"{ip} addr add 10.{n}.0.1/32 dev meshnet",
        f"{ip} addr add fd00:10:{n}::1/128 dev meshnet nodad",
        f"{ip} route add 10.{other}.0.0/24 dev meshnet src 10.{n}.0.1",
        f"{ip} route add fd00:10:{other}::/112 dev meshnet src fd00:10:{n}::1",
        f"{ip} link add web address {MAC} type veth peer name eth0 netns {host.endpoint}",
        f"{ip} link set web up",
        f"{ip} route add 10.{n}.0.10 dev web src 10.{n}.0.1",
        f"{ip} route add fd00:10:{n}::10 dev web src fd00:10:{n}::1",
        f"{ip} neigh add 10.{n}.0.10 lladdr {ENDPOINT_MAC} dev web",
        f"{ip} neigh add fd00:10:{n}::10 lladdr {ENDPOINT_MAC} dev web",
        f"{inner} link set lo up",
        f"{inner} link set eth0 address {ENDPOINT_MAC} up",
        f"{inner} addr add 10.{n}.0.10/32 dev eth0",
        f"{inner} addr add fd00:10:{n}::10/128 dev eth0 nodad",
        f"{inner} neigh add 10.{n}.0.1 lladdr {MAC} dev eth0",
        f"{inner} neigh add fd00:10:{n}::1 lladdr {MAC} dev eth0",
        f"{inner} route add 10.{n}.0.1 dev eth0",
        f"{inner} route add default via 10.{n}.0.1 dev eth0 mtu 1430",
        f"{inner} route add fd00:10:{n}::1 dev eth0",
        f"{inner} route add default via fd00:10:{n}::1 dev eth0 mtu 1430",
    ):
        run(command)
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        run(f"ip netns exec {host.name} sysctl -qw {key}=1")


def fill(
    dataplane: KernelDataplane, host: Host, hosts: list[Host], *, underlay: int, mode: Mode
) -> None:
    """All rows; `underlay` is the IP version that packets between the nodes travel in.
    Native IPv4 then goes by an IPv6 next hop where the underlay is IPv6."""
    rows = {}
    for other in hosts:
        n = other.number
        outer = {4: ip_address(f"192.0.2.{n}"), 6: ip_address(f"2001:db8::{n}")}
        # IPv6 has no next hop but an IPv6 one
        hops = (
            tuple(outer.values()) if underlay == 4 and mode is Mode.NATIVE else (outer[underlay],)
        )
        for address in outer.values():
            row = node(
                str(address), n, local=other is host,
                modes=Modes(ipv4=mode, ipv6=mode), next_hops=hops,
            )  # fmt: skip
            rows[row.address] = row
    dataplane.update_nodes(rows, ())
    ipcache = {}
    for other in hosts:
        n = other.number
        outer = ip_address(f"192.0.2.{n}" if underlay == 4 else f"2001:db8::{n}")
        for address, identity in (
            (f"10.{n}.0.10/32", other.identity),
            (f"fd00:10:{n}::10/128", other.identity),
            (f"10.{n}.0.1/32", 6),
            (f"fd00:10:{n}::1/128", 6),
        ):
            ipcache[ip_network(address)] = IpcacheRow(identity=identity, node=outer)
    dataplane.update_ipcache(ipcache, ())


@attrs.frozen
class Pair:
    east: Host
    west: Host
    dataplanes: dict[str, KernelDataplane]

    def travel_over(self, underlay: int, mode: Mode = Mode.VXLAN) -> None:
        for host in (self.east, self.west):
            self.send_by(host, mode, underlay=underlay)

    def send_by(self, host: Host, mode: Mode, *, underlay: int = 4) -> None:
        """What this node's endpoint sends; the other node's goes on as before."""
        hosts = [self.east, self.west]
        fill(self.dataplanes[host.name], host, hosts, underlay=underlay, mode=mode)

    def counters(self, host: Host) -> dict[str, int]:
        return {row["counter"]: row["packets"] for row in self.dump(host, "counters")}

    def restart_agent(self, host: Host) -> None:
        self.dataplanes[host.name].close()
        self.dataplanes[host.name] = host.dataplane()

    def drops(self, host: Host) -> list[str]:
        return [f"{drop.reason} {drop.direction}" for drop in self.dataplanes[host.name].drops()]

    def dump(self, host: Host, name: str) -> list[dict[str, Any]]:
        return self.dataplanes[host.name].dump(name)

    def reconfigure(self, host: Host, **changes: Any) -> None:
        """Other constants: another generation of programs."""
        with inside(host.name):
            config = attrs.evolve(host.config(), **changes)
            self.dataplanes[host.name].configure(config)

    def pinned(self, host: Host) -> set[Path]:
        """Programs that are pinned, with the generation they are of."""
        return {path.relative_to(host.pins) for path in host.pins.glob("gen-*/*")}

    def seen(self, host: Host) -> set[int]:
        """Identities that this node's endpoint has had packets from."""
        return {row["identity"] for row in self.dataplanes[host.name].seen_identities()}


@contextlib.contextmanager
def two_nodes(directory: Path, wire: Callable[[Host, Host], None] = _wire) -> Iterator[Pair]:
    """Both up and configured; no namespace, mount or pin is left afterwards. `wire` gives each
    its interface `underlay`."""
    unique = f"bpf{os.getpid()}-{next(_runs)}"
    hosts = [
        Host(f"{unique}-{name}", n, directory / name) for n, name in ((1, "east"), (2, "west"))
    ]
    namespaces = [name for host in hosts for name in (host.name, host.endpoint)]
    dataplanes: dict[str, KernelDataplane] = {}
    with bpf_file_system(directory):
        try:
            for name in namespaces:
                run(f"ip netns add {name}")
            wire(*hosts)
            for host in hosts:
                _links(host)
                dataplanes[host.name] = host.dataplane()
                with inside(host.name):
                    dataplanes[host.name].attach_endpoint(host.row())
            yield Pair(hosts[0], hosts[1], dataplanes)
        finally:
            for dataplane in dataplanes.values():
                dataplane.unload()
                dataplane.close()
            for name in namespaces:
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ping(namespace: str, to: str, count: int, interval_s: float, size: int) -> list[str]:
    return [
        *("ip", "netns", "exec", namespace, "ping", "-n", "-W", "1"),
        *("-c", str(count), "-i", str(interval_s), "-s", str(size), to),
    ]


def _lost(output: str, count: int) -> int:
    received = [line for line in output.splitlines() if "packets transmitted" in line]
    assert received, f"ping said: {output}"
    return count - int(received[0].split(",")[1].split()[0])


def lost_pings(
    namespace: str, to: str, *, count: int = 3, interval_s: float = 0.01, size: int = 56
) -> int:
    """How many of `count` pings had no answer."""
    command = _ping(namespace, to, count, interval_s, size)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return _lost(done.stdout + done.stderr, count)


@attrs.define
class Pings:
    lost: int = -1


@contextlib.contextmanager
def pinging(namespace: str, to: str, *, count: int, interval_s: float) -> Iterator[Pings]:
    """Ping while the block runs; afterwards `lost` says how many had no answer."""
    result = Pings()
    command = _ping(namespace, to, count, interval_s, 56)
    ping = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield result
        output, _ = ping.communicate(timeout=30)
    finally:
        ping.kill()
        ping.wait()
    result.lost = _lost(output, count)


class Wire:
    """What passed an interface, by a raw socket."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw

    def udp(self, port: int) -> list[Read]:
        """IPv4 packets to this UDP port, up to now."""
        found = []
        while True:
            try:
                data = self._raw.recv(1 << 16)
            except BlockingIOError:
                return found
            if data[12:14] == b"\x08\x00" and data[23] == UDP:
                packet = read(data)
                found += [packet] if packet.ports[1] == port else []


@contextlib.contextmanager
def capture(interface: str) -> Iterator[Wire]:
    """Needs to be `inside` the interface's namespace."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
        raw.bind((interface, 3))
        raw.setblocking(False)
        yield Wire(raw)
