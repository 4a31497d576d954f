"""Services at the socket, against the backend itself and against nftables' translation.

    plain  10.97.1.2 ─┐                 no service; and, in a cgroup of its own, ours
    map    10.97.2.2 ─┼─ server .1      nftables: one map of all services
    rules  10.97.3.2 ─┘                 nftables: one rule a service; asked for: one in the middle

Namespaces on veths of their own, since a translation in the packets' way is paid for by whoever
shares it. The dataplane is loaded apart from any node, beside idle interfaces.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import if_nametoindex

import attrs

from meshnet.dataplane import artifact
from meshnet.dataplane.kernel import KernelDataplane
from meshnet.dataplane.schema import Sizes
from meshnet.errors import LabError
from meshnet.host.cgroup import Cgroup, hierarchy
from meshnet.host.namespace import Namespace, enter_path
from meshnet.logic.diff import plan
from meshnet.logic.service_rows import Here
from meshnet.logic.service_rows import rows as service_rows
from meshnet.logic.services import Resolver, World
from meshnet.model.addressing import Address
from meshnet.model.dataplane import NodeConfig, ServiceRow
from meshnet.model.service import (
    EndpointSlice,
    Frontend,
    Protocol,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from topology.bench import ratio
from topology.bench.ratio import Result
from topology.bench.sides import CPUS

COUNTS = (10, 1_000, 10_000)
DIRECT = "the backend itself"
DIRECT_BAR = 0.95
BACKENDS = 5_000
CHANGES = 20
ECHO, CONNECTS = 9000, 9001
"""Ports of the two servers, and of their services."""
CLIENTS = ("plain", "map", "rules")
FRESH = "table ip bench\ndelete table ip bench\ntable ip bench {"
HOOK = "type nat hook output priority -100"
SIZES = attrs.evolve(Sizes.lab(), services=32_768, backends=16_384, backend_slots=65_536)
PREFIX = f"bench-{os.getpid()}"

Say = Callable[[str], None]


def measure(program: Path, times: int, milliseconds: int, say: Say) -> list[Result]:
    """Args: `milliseconds`: of load, for each alternative in each of `times` rounds."""
    found = []
    with namespaces(program), served() as (dataplane, cgroup):
        for count in COUNTS:
            say(f"services at the socket, {count} of them, {times} rounds")
            dataplane.update_services(rows(count), ())
            for name in ("map", "rules"):
                _nft(name, rulesets(count)[name])
            found += list(_compared(program, cgroup, count, times, milliseconds))
        say(f"a change in a service of {BACKENDS} backends")
        found.append(_changes(dataplane))
    found.append(_passes())
    return found


def _compared(
    program: Path, cgroup: Cgroup, count: int, times: int, milliseconds: int
) -> Iterator[Result]:
    vip = str(vip_of(count // 2))
    for what, mode, port in (
        ("TCP connects to a service", "connects", CONNECTS),
        ("TCP round trips with a service", "rr", ECHO),
    ):

        def load(name: str, address: str, procs: Path | None = None) -> Callable[[], float]:
            argv = [str(program), mode, address, str(port), str(milliseconds)]  # noqa: B023
            return lambda: float(_run(name, argv, procs))

        alternatives = {
            "ours": load("plain", vip, cgroup.path / "cgroup.procs"),
            DIRECT: load("plain", server_of("plain")),
            "one nftables map": load("map", vip),
            "one nftables rule a service": load("rules", vip),
        }
        for each in alternatives.values():
            each()  # neighbours are known, caches are as they will be
        taken = list(ratio.rounds(alternatives, times))
        for peer in list(alternatives)[1:]:
            pairs = [(each["ours"], each[peer]) for each in taken]
            yield ratio.compare(what, "1/s", f"{count} services, against {peer}", pairs)


def _changes(dataplane: KernelDataplane) -> Result:
    """One of many backends is another one, until the next connect can get it."""
    pairs = []
    front = Frontend(vip_of(0), ECHO, Protocol.TCP)
    for turn in range(CHANGES + 1):
        ports = [*range(1, BACKENDS), 10_000 + turn]
        slots = tuple(Frontend(ip_address(server_of("map")), p, Protocol.TCP) for p in ports)
        began = time.perf_counter()
        dataplane.update_services({front: ServiceRow(slots=slots)}, ())
        ours = time.perf_counter() - began
        began = time.perf_counter()
        _nft("map", chosen(ports))
        pairs.append((1 / ours, 1 / (time.perf_counter() - began)))
    setting = (
        f"one of {BACKENDS} backends, {BACKENDS * 8} bytes copied and 4 rows written, against "
        "nftables' one rule with a map of all, written anew (kube-proxy's way)"
    )
    return ratio.compare("changes of a service", "1/s", setting, pairs[1:])


def _passes() -> Result:
    """What the agent decides before it writes that change: milliseconds of its own CPU."""
    port = ServicePort(name="", port=ECHO, protocol=Protocol.TCP, target=ECHO)
    service = Service(namespace="default", name="big", ports=(port,))
    here, taken = Here(cluster="east", node="east-1"), []
    before: dict[Frontend, ServiceRow] = {}
    for turn in range(CHANGES + 1):
        addresses = [ip_address("10.97.0.0") + n for n in (*range(1, BACKENDS), 10_000 + turn)]
        hosts = EndpointSlice(
            namespace="default",
            name="big-1",
            service="big",
            endpoints=tuple(SliceEndpoint(addresses=(address,)) for address in addresses),
            ports=(SlicePort(name="", port=ECHO, protocol=Protocol.TCP),),
        )
        began = time.process_time()
        resolver = Resolver(World(cluster="east", candidates=(), slices=(hosts,)))
        wanted = service_rows(resolver.resolve(service, (vip_of(0),)), here, {}, {})
        changed = plan(wanted, before)
        taken.append(time.process_time() - began)
        before |= changed.replace
    return Result(
        name="a pass over a service",
        unit="ms",
        ours=statistics.median(taken[1:]) * 1e3,
        peer=None,
        ratio=None,
        low=None,
        high=None,
        runs=CHANGES,
        setting=f"one of {BACKENDS} backends changes, decided anew, not yet written",
    )


# --- what is asked for ------------------------------------------------------------------------


def vip_of(number: int) -> Address:
    return ip_address("100.64.0.0") + 1 + number


def server_of(client: str) -> str:
    """The server's address on the veth of a client."""
    return f"10.97.{CLIENTS.index(client) + 1}.1"


def rows(count: int) -> dict[Frontend, ServiceRow]:
    """Every service has the one backend that there is."""
    backend = ip_address(server_of("plain"))
    return {
        Frontend(vip_of(number), port, Protocol.TCP): ServiceRow(
            slots=(Frontend(backend, port, Protocol.TCP),)
        )
        for number in range(count)
        for port in (ECHO, CONNECTS)
    }


def rulesets(count: int) -> dict[str, str]:
    """By client: the same services for nftables."""
    ports = (ECHO, CONNECTS)
    fronts = [(vip_of(number), port) for number in range(count) for port in ports]
    elements = ", ".join(f"{v} . {p} : {server_of('map')} . {p}" for v, p in fronts)
    lines = "\n".join(
        f"ip daddr {v} tcp dport {p} dnat to {server_of('rules')}:{p}" for v, p in fronts
    )
    return {
        "map": f"""{FRESH}
            map services {{
                type ipv4_addr . inet_service : ipv4_addr . inet_service
                elements = {{ {elements} }}
            }}
            chain output {{
                {HOOK}
                dnat ip addr . port to ip daddr . tcp dport map @services
            }}
            chain one {{
            }}
        }}""",
        "rules": f"""{FRESH}
            chain output {{
                {HOOK}
                {lines}
            }}
        }}""",
    }


def chosen(ports: list[int]) -> str:
    """One service's rule, its backends drawn at random."""
    elements = ", ".join(f"{n} : {server_of('map')} . {port}" for n, port in enumerate(ports))
    drawn = f"numgen random mod {len(ports)} map {{ {elements} }}"
    rule = f"meta l4proto tcp dnat ip addr . port to {drawn}"
    return f"flush chain ip bench one\nadd rule ip bench one {rule}\n"


# --- where it runs ----------------------------------------------------------------------------


@contextlib.contextmanager
def namespaces(program: Path) -> Iterator[None]:
    """The server with both its ports open, and the clients."""
    names = ("server", *CLIENTS)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for name in names:
            _do(f"ip netns add {PREFIX}-{name}")
            _do(f"ip -n {PREFIX}-{name} link set lo up")
        for number, name in enumerate(CLIENTS, 1):
            inner, outer = f"-n {PREFIX}-{name}", f"-n {PREFIX}-server"
            _do(f"ip {inner} link add eth0 type veth peer name c{number} netns {PREFIX}-server")
            _do(f"ip {inner} addr add 10.97.{number}.2/24 dev eth0")
            _do(f"ip {outer} addr add 10.97.{number}.1/24 dev c{number}")
            _do(f"ip {outer} link set c{number} up")
            _do(f"ip {inner} link set eth0 up")
            _do(f"ip {inner} route add default via 10.97.{number}.1")
        for name in ("map", "rules"):  # connections that ended leave their rows at once
            _run(name, ["sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_timeout_close=1"])
        for mode, port in (("serve", ECHO), ("accept", CONNECTS)):
            argv = _inside("server", ["taskset", "-c", CPUS[1], str(program), mode, str(port)])
            servers.append(subprocess.Popen(argv))
        _until_open()
        yield
    finally:
        for each in servers:
            each.kill()
            each.wait()
        for name in names:
            subprocess.run(["ip", "netns", "del", f"{PREFIX}-{name}"], check=False)


@contextlib.contextmanager
def served() -> Iterator[tuple[KernelDataplane, Cgroup]]:
    """A dataplane in the plain client's namespace, and the cgroup whose sockets it serves."""
    group = Cgroup(hierarchy() / PREFIX)
    with tempfile.TemporaryDirectory() as mounted, _entered("plain"):
        _do(f"mount -t bpf bpf {mounted}")
        group.create()
        try:
            for kind in ("underlay", "meshnet"):
                _do(f"ip link add {kind} type veth peer name {kind}-peer")
            dataplane = KernelDataplane(Path(mounted) / "meshnet", artifact.find(), sizes=SIZES)
            try:
                dataplane.configure(_config())
                dataplane.attach_sockets(group.path)
                yield dataplane, group
            finally:
                dataplane.unload()
                dataplane.close()
        finally:
            group.kill()
            group.remove()
            _do(f"umount {mounted}")


def _config() -> NodeConfig:
    """Of a node on its own: nothing comes by its interfaces."""
    return NodeConfig(
        cluster_id=1,
        underlay_ifindex=if_nametoindex("underlay"),
        vxlan_ifindex=if_nametoindex("meshnet"),
        underlay_ipv4=ip_address("192.0.2.1"),
        underlay_ipv6=None,
        pod_cidrs=(ip_network("10.1.0.0/24"),),
        gateway_ipv4=ip_address("10.1.0.1"),
        gateway_ipv6=None,
        gateway_mac="02:00:00:00:00:01",
    )


@contextlib.contextmanager
def _entered(name: str) -> Iterator[None]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter_path(f"/run/netns/{PREFIX}-{name}", Namespace.NET)
        yield
    finally:
        enter_path(f"/proc/self/fd/{before}", Namespace.NET)
        os.close(before)


def _inside(name: str, argv: list[str]) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{PREFIX}-{name}", *argv]


def _run(name: str, argv: list[str], procs: Path | None = None) -> str:
    """On the client's CPU, in a namespace, and in a cgroup from before its first socket."""
    pinned = ["taskset", "-c", CPUS[0], *argv]
    if procs is not None:
        pinned = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(procs), *pinned]
    return _output(_inside(name, pinned))


def _nft(name: str, ruleset: str) -> None:
    _output(_inside(name, ["nft", "-f", "-"]), ruleset)


def _do(command: str) -> None:
    _output(command.split())


def _output(argv: list[str], said: str = "") -> str:
    """Raises LabError."""
    done = subprocess.run(argv, input=said, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip()[:500]}")
    return done.stdout


def _until_open() -> None:
    """Both servers answer. Raises LabError: not within ten seconds."""
    deadline = time.monotonic() + 10
    for port in (ECHO, CONNECTS):
        probe = _inside("server", ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"])
        while subprocess.run(probe, capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                raise LabError(f"the server on port {port} does not listen")
            time.sleep(0.05)
