"""Open vSwitch as a node of west: VXLAN with its own cluster, Geneve with east, both ways; and
Wireshark's dissectors agree with what is on the wire.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import attrs
import pytest

from meshnet.model.addressing import Prefix, host_prefix, overlaps
from meshnet.model.endpoint import IpEntry
from meshnet.model.identity import ReservedIdentity
from meshnet.model.node import Node
from meshnet.registry import codec, schema
from tests.support.formed import NODES, SWITCH, UNDERLAY, Mesh, Workload, eventually, network_of
from tests.support.ovs import PORT, OpenVSwitch, Tunnel, open_vswitch
from tests.support.two_nodes import lost_pings

pytestmark = pytest.mark.lab

OUTER = "172.31.0.77"
IDENTITY = 2 << 16 | 999
TUNNELS = {"east-1": ("geneve", 6081), "west-1": ("vxlan", 8472)}
"""By the node at the other end: each sends by its own cluster's protocol."""


@attrs.frozen
class Member:
    """The switch as a node of west, in its key as any other."""

    networks: tuple[Prefix, Prefix]

    @property
    def addresses(self) -> dict[int, str]:
        """Of the client behind it."""
        return {network.version: str(network[10]) for network in self.networks}

    @property
    def keys(self) -> dict[str, bytes]:
        outer = ip_address(OUTER)
        node = Node(
            name="ovs", cluster="west", cluster_id=2, addresses=(outer,),
            gateways=tuple(network[1] for network in self.networks), pod_cidrs=self.networks,
        )  # fmt: skip
        keys = {schema.node("west", "ovs"): codec.encode_node(node)}
        for text in self.addresses.values():
            address = ip_address(text)
            entry = IpEntry(
                prefix=host_prefix(address), host=outer, identity=IDENTITY,
                name="client", namespace="default", node="ovs", endpoint_id=1,
            )  # fmt: skip
            keys[schema.ip(address)] = codec.encode_ip_entry(entry)
        return keys


@pytest.fixture(scope="module")
def member(modes: Mesh) -> Member:
    """With PodCIDRs that no node of west has."""
    rows = modes.each("status").values()
    taken = [ip_network(text) for row in rows for text in row["node"]["pod_cidrs"]]
    four = ip_network("10.2.0.0/16").subnets(new_prefix=22)
    free = next(n for n in four if not any(overlaps(n, t) for t in taken if t.version == 4))
    return Member((free, ip_network("fd00:10:2::ffff:0/112")))


@pytest.fixture(scope="module")
def switch(
    modes: Mesh,
    on: dict[str, Workload],
    member: Member,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OpenVSwitch]:
    client = list(member.addresses.values())
    directory = tmp_path_factory.mktemp("ovs")
    with (
        open_vswitch(modes, directory, underlay=f"{OUTER}/24", client=client) as made,
        contextlib.ExitStack() as stack,
    ):
        for node, (kind, port) in TUNNELS.items():
            to = (on[node].ipv4, on[node].ipv6)
            made.add_tunnel(Tunnel(kind, UNDERLAY[node], port, identity=IDENTITY, to=to))
        for key, value in member.keys.items():
            stack.callback(modes.etcd, "west-1", "delete", key)
            modes.etcd("west-1", "put", key, value.decode())
        yield made


@contextlib.contextmanager
def _captured(modes: Mesh, file: Path) -> Iterator[None]:
    """What passes the switch's port of Open vSwitch, as a file."""
    with network_of(modes[SWITCH]):
        command = ["tcpdump", "-i", PORT, "-w", str(file), "-U", "--immediate-mode", "udp"]
        dump = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        assert dump.stderr is not None
        assert b"listening" in dump.stderr.readline()
        yield
        time.sleep(0.2)  # what was sent last is still on its way to the file
    finally:
        dump.terminate()
        dump.wait(timeout=10)


def _decoded(file: Path, *words: str) -> list[list[str]]:
    command = ["tshark", "-r", str(file), "-d", "udp.port==8472,vxlan", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [line.split("\t") for line in done.stdout.splitlines()]


def _probes(modes: Mesh, cluster: str, member: Member) -> set[tuple[str, str, str]]:
    """What nodes of a cluster measure their paths to it by: (type, outer and inner source, outer
    and inner destination). Their addresses are those of now: a test may have changed them."""
    rows = modes.each("status", nodes=[name for name in NODES if name.startswith(cluster)])
    return {
        ("8", f"{outer},{network[1]}", f"{OUTER},{member.networks[0][1]}")
        for row in rows.values()
        for outer in row["node"]["addresses"]
        for network in map(ip_network, row["node"]["pod_cidrs"])
        if network.version == 4
    }


@pytest.mark.parametrize("node", TUNNELS)
def test_open_vswitch_and_we_understand_each_other_and_so_does_wireshark(
    modes: Mesh,
    on: dict[str, Workload],
    member: Member,
    switch: OpenVSwitch,
    tmp_path: Path,
    node: str,
) -> None:
    kind, _ = TUNNELS[node]
    ours, there = on[node], member.addresses
    here = {4: ours.ipv4, 6: ours.ipv6}

    def answered() -> bool:
        script = " && ".join(f"ping -q -c 1 -W 1 {address}" for address in there.values())
        return "failed" not in modes.inside(ours, f"{{ {script}; }} >/dev/null || echo failed")

    eventually(answered, within_s=20)  # the rows are there, and it has asked for our MAC
    file = tmp_path / f"{node}.pcap"
    with _captured(modes, file):
        for family in (4, 6):
            ping = f"ping -q -c 3 -i 0.05 -W 2 {there[family]}"
            assert "3 received" in modes.inside(ours, ping)
            assert lost_pings(switch.client, here[family]) == 0

    peers = {row["node"]: row["mode"] for row in modes.json(node, "status")["peers"]}
    assert peers["ovs"] == kind
    seen = modes.json(node, "map", "dump", "seen_identities")
    assert IDENTITY in {row["identity"] for row in seen if row["endpoint_id"] == ours.id}

    fields = [f"{kind}.vni", "icmp.type", "icmpv6.type", "ip.src", "ip.dst"]
    wanted = ("-T", "fields", *(word for field in fields for word in ("-e", field)))
    rows = _decoded(file, "-Y", f"{kind} && (icmp || icmpv6)", *wanted)
    between = [row for row in rows if int(row[0], 0) != ReservedIdentity.REMOTE_NODE]
    both = {ours.identity, IDENTITY}
    heard = {(int(vni, 0), four or six) for vni, four, six, *_ in between}
    assert heard == {(vni, message) for vni in both for message in ("8", "0", "128", "129")}
    assert len(between) == 2 * 2 * 6, "every request and answer, both ways, both families"
    # beside them each node of that cluster measures its path to this one: agent/path_probe.py
    measuring = {(row[1], row[3], row[4]) for row in rows if row not in between}
    assert measuring <= _probes(modes, ours.cluster, member)
    assert _decoded(file, "-Y", "_ws.malformed") == []
    if kind == "geneve":
        assert _decoded(file, "-Y", f"geneve.option && ip.src == {UNDERLAY[node]}") == []


def test_every_node_of_the_mesh_is_still_ready(modes: Mesh, switch: OpenVSwitch) -> None:
    """A node that answers no probe and speaks no agent's language harms nobody."""
    assert switch.namespace
    for name, status in modes.each("status", nodes=NODES).items():
        assert status["ready"] is True, name
