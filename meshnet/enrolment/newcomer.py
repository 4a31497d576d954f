"""May that host be a node of our cluster? Pure; each reason in an operator's words."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from meshnet.enrolment.messages import JoinNodeRequest
from meshnet.logic.agreement import compare_node
from meshnet.model.ability import Abilities
from meshnet.model.addressing import Prefix, contains, overlaps
from meshnet.model.check import Check, Fault
from meshnet.model.cluster import Cluster
from meshnet.model.node import Node
from meshnet.model.remote import Remote


@attrs.frozen(kw_only=True)
class Household:
    """Everything of our side that a new node could collide with."""

    cluster: Cluster
    abilities: Abilities
    nodes: tuple[Node, ...] = ()
    remotes: tuple[Remote, ...] = ()

    def prefixes(self) -> Iterator[tuple[str, Prefix]]:
        """What is taken, and how messages call it."""
        for prefix in self.cluster.pod_cidrs:
            yield f"PodCIDR {prefix}", prefix
        for prefix in self.cluster.service_cidrs:
            yield f"service CIDR {prefix}", prefix
        for remote in self.remotes:
            for prefix in remote.pod_cidrs:
                yield f"PodCIDR {prefix} of cluster {remote.name!r}", prefix


def examine_node(ours: Household, request: JoinNodeRequest, *, again: bool) -> tuple[Check, ...]:
    """Every check, each with the first fault it found.

    Args:
        again: the same claimant has joined by this token, and may be live already.
    """
    spoken = ", ".join(map(str, request.addresses))
    return (
        Check.of("name", _name_faults(ours, request, again=again), f"{request.node!r} is free"),
        Check.of("address", _address_faults(ours, request), f"{spoken}: nobody else's"),
        Check.of(
            "pod-cidr",
            _prefix_faults(ours, request),
            f"{', '.join(map(str, ours.cluster.pod_cidrs))}: hides nothing that the host has",
        ),
        *compare_node(
            ours.abilities,
            request.abilities,
            f"host {request.node!r}",
            tunnel=ours.cluster.tunnel.value,
        ),
    )


def _name_faults(ours: Household, request: JoinNodeRequest, *, again: bool) -> Iterator[Fault]:
    for node in ours.nodes:
        if node.name == request.node and not again:
            yield Fault(
                f"node {node.name!r} is live in cluster {ours.cluster.name!r}",
                f"choose another name with --node, or run `meshnet node delete {node.name}` first",
            )


def _address_faults(ours: Household, request: JoinNodeRequest) -> Iterator[Fault]:
    if not request.addresses:
        yield Fault(f"node {request.node!r} names no underlay address")
    for node in ours.nodes:
        for address in request.addresses:
            if address in node.addresses and node.name != request.node:
                yield Fault(f"address {address} is that of node {node.name!r}")


def _prefix_faults(ours: Household, request: JoinNodeRequest) -> Iterator[Fault]:
    for what, prefix in ours.prefixes():
        for address in request.addresses:
            if contains(prefix, address):
                yield Fault(
                    f"underlay address {address} lies in {what}",
                    "give the host an address outside, or choose another interface by --underlay",
                )
        for network in request.networks:
            if overlaps(network, prefix):
                yield Fault(
                    f"the host is on {network}, which overlaps {what}",
                    "renumber that network, or set the cluster up with another --pod-cidr",
                )
        for route in request.routes:
            # a wider route is no harm: the PodCIDR's own routes are longer and win
            if overlaps(route, prefix) and route.prefixlen >= prefix.prefixlen:
                yield Fault(
                    f"the host has a route to {route}, which would win over {what}",
                    "remove the route, or set the cluster up with another --pod-cidr",
                )
