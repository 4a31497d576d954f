"""Nodes behind a router: native where it knows the PodCIDRs, by tunnel where it does not.

10.1.0.10 ─ east 192.0.2.1 ══ 192.0.2.254 [router] 192.0.2.253 ══ 192.0.2.2 west ─ 10.2.0.10
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import attrs
import pytest

from meshnet.model.dataplane import Mode
from tests.support.bpf import run
from tests.support.two_nodes import Host, Pair, lost_pings, two_nodes

pytestmark = [pytest.mark.bpf, pytest.mark.netlink]

ROUTER = {1: ("192.0.2.254", "2001:db8::fe"), 2: ("192.0.2.253", "2001:db8::fd")}
"""Its addresses on the side of each node."""
WAYS = ("10.2.0.10", "fd00:10:2::10")


def _router(host: Host) -> str:
    return f"{host.name.rpartition('-')[0]}-router"


def _through_a_router(east: Host, west: Host) -> None:
    router = _router(east)
    run(f"ip netns add {router}")
    # it solicits neighbours from its link-local address: one that it may use at once
    run(f"ip netns exec {router} sysctl -qw net.ipv6.conf.default.accept_dad=0")
    for host in (east, west):
        port = f"to{host.number}"
        run(f"ip -n {host.name} link add underlay type veth peer name {port} netns {router}")
        run(f"ip -n {router} link set {port} up")
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        run(f"ip netns exec {router} sysctl -qw {key}=1")


def _address(host: Host) -> None:
    """The node alone on its link with the router."""
    n, (four, six) = host.number, ROUTER[host.number]
    node, router = f"ip -n {host.name}", f"ip -n {_router(host)}"
    for command in (
        f"{node} addr del 192.0.2.{n}/24 dev underlay",
        f"{node} addr del 2001:db8::{n}/64 dev underlay",
        f"{node} addr add 192.0.2.{n}/32 dev underlay",
        f"{node} addr add 2001:db8::{n}/128 dev underlay nodad",
        f"{router} addr add {four}/32 dev to{n}",
        f"{router} addr add {six}/128 dev to{n} nodad",
        f"{router} route add 192.0.2.{n} dev to{n}",
        f"{router} route add 2001:db8::{n} dev to{n}",
        f"{node} route add {four} dev underlay",
        f"{node} route add {six} dev underlay",
        f"{node} route add 192.0.2.0/24 via {four}",
        f"{node} route add 2001:db8::/64 via {six} metric 1",
    ):
        run(command)


def _teach(host: Host) -> None:
    """The router learns the node's PodCIDRs."""
    n, router = host.number, _router(host)
    run(f"ip -n {router} route add 10.{n}.0.0/24 via 192.0.2.{n} dev to{n}")
    run(f"ip -n {router} route add fd00:10:{n}::/112 via 2001:db8::{n} dev to{n}")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    router = ""
    try:
        with two_nodes(tmp_path_factory.mktemp("bpf"), _through_a_router) as nodes:
            router = _router(nodes.east)
            for host in (nodes.east, nodes.west):
                _address(host)
            yield nodes
    finally:
        subprocess.run(["ip", "netns", "del", router], check=False, capture_output=True)


def _send_by(pair: Pair, mode: Mode, underlay: int = 4) -> None:
    """By the router, as the agent's rows would say."""
    pair.travel_over(underlay, mode)
    for host in (pair.east, pair.west):
        hops = tuple(map(ip_address, ROUTER[host.number]))
        dataplane = pair.dataplanes[host.name]
        rows = {a: attrs.evolve(r, next_hops=hops) for a, r in dataplane.nodes().items()}
        dataplane.update_nodes(rows, ())


@pytest.mark.parametrize("mode", [Mode.VXLAN, Mode.GENEVE])
@pytest.mark.parametrize("underlay", [4, 6])
def test_a_tunnel_needs_a_router_that_knows_the_nodes_alone(
    pair: Pair, mode: Mode, underlay: int
) -> None:
    _send_by(pair, mode, underlay)

    for to in WAYS:
        assert lost_pings(pair.east.endpoint, to) == 0, pair.drops(pair.west)


def test_native_needs_one_that_knows_the_pod_cidrs_too(pair: Pair) -> None:
    """Last in the file: the router does not forget."""
    _send_by(pair, Mode.NATIVE)
    assert lost_pings(pair.east.endpoint, WAYS[0], count=1) == 1
    for host in (pair.east, pair.west):
        _teach(host)

    before = pair.counters(pair.west)["received_native"]
    for to in WAYS:
        assert lost_pings(pair.east.endpoint, to) == 0, pair.drops(pair.west)

    assert pair.counters(pair.west)["received_native"] == before + 6
    ping = f"ip netns exec {pair.east.endpoint} ping -n -c 1 -W 1 {WAYS[0]}"
    assert "ttl=61" in run(ping), "west's node, the router, east's node"
    assert pair.west.identity in pair.seen(pair.east)
