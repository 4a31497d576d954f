"""Do two sides of a join fit together: clock, protocol, tunnel, address families, identities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from meshnet.model.ability import Abilities
from meshnet.model.check import Check, Fault
from meshnet.model.node import Node

UPGRADE = "bring it to the version of meshnet that the cluster has"
MAX_SKEW_S = 120.0
"""Certificates are backdated by five minutes, so a clock that is behind by less still takes
a fresh one; less than half of that leaves room for drift."""


def compare(ours: Abilities, theirs: Abilities, other: str) -> tuple[Check, ...]:
    """`other`: how messages call the other side."""
    skew = skew_s(ours.now, theirs.now)
    return (
        Check.of("clock", _clock_faults(skew, other), _spoken(skew, other)),
        Check.of("protocol", _protocol_faults(ours, theirs, other), f"both speak {ours.protocol}"),
        Check.of(
            "tunnel-protocol",
            _tunnel_faults(ours, theirs, other),
            f"we send {ours.tunnel}, {other} sends {theirs.tunnel}: each takes the other's",
        ),
        Check.of("families", _family_faults(ours, theirs, other), _shared(ours, theirs)),
        identities(ours.max_connected_clusters, theirs.max_connected_clusters, other),
    )


def identities(ours: int, theirs: int, other: str) -> Check:
    """By what both sides have for maxConnectedClusters; 0: it says nothing, as Cilium did before
    it could be set, and means ours."""
    return Check.of(
        "identities",
        _identity_faults(ours, theirs or ours, other),
        f"maxConnectedClusters is {ours} on both sides",
    )


def compare_node(
    cluster: Abilities, node: Abilities, name: str, *, tunnel: str
) -> tuple[Check, ...]:
    """As the cluster sees a node that wants in; `tunnel`: what the cluster's nodes send."""
    skew = skew_s(cluster.now, node.now)
    unknown = (
        Fault(f"the cluster sends {tunnel}, {name} takes {', '.join(node.accepts)} only", UPGRADE)
        for sent in (tunnel,)
        if sent not in node.accepts
    )
    return (
        Check.of("clock", _clock_faults(skew, name), _spoken(skew, name)),
        Check.of("protocol", _protocol_faults(cluster, node, name), f"both: {cluster.protocol}"),
        Check.of("tunnel-protocol", unknown, f"the cluster sends {tunnel}, {name} takes it"),
        Check.of("families", _family_faults(cluster, node, name), _shared(cluster, node)),
    )


def skew_s(ours: datetime | None, theirs: datetime | None) -> float | None:
    """Seconds that their clock is ahead of ours; None where one did not say."""
    if ours is None or theirs is None:
        return None
    return (theirs - ours).total_seconds()


def families_of(nodes: Iterable[Node]) -> tuple[int, ...]:
    """The IP versions that every node has an underlay address of."""
    each: list[set[int]] = [{address.version for address in node.addresses} for node in nodes]
    return tuple(sorted(set.intersection(*each))) if each else ()


def _clock_faults(skew: float | None, other: str) -> Iterator[Fault]:
    if skew is not None and abs(skew) > MAX_SKEW_S:
        yield Fault(
            f"{_spoken(skew, other)}, more than {MAX_SKEW_S:.0f} s",
            "set the clocks right (`timedatectl set-ntp true`, or chrony)",
        )


def _spoken(skew: float | None, other: str) -> str:
    if skew is None:
        return f"{other} did not say its time"
    return f"the clock of {other} is {abs(skew):.1f} s {'ahead' if skew >= 0 else 'behind'}"


def _protocol_faults(ours: Abilities, theirs: Abilities, other: str) -> Iterator[Fault]:
    if ours.protocol != theirs.protocol:
        older = other if theirs.protocol < ours.protocol else "this side"
        yield Fault(
            f"we speak enrolment protocol {ours.protocol}, {other} speaks {theirs.protocol}",
            f"bring {older} to the newer version of meshnet",
        )


def _tunnel_faults(ours: Abilities, theirs: Abilities, other: str) -> Iterator[Fault]:
    if ours.tunnel not in theirs.accepts:
        yield Fault(
            f"we send {ours.tunnel}, {other} takes {', '.join(theirs.accepts) or 'nothing'} only",
            "set both clusters up with the same --tunnel",
        )
    if theirs.tunnel not in ours.accepts:
        yield Fault(
            f"{other} sends {theirs.tunnel}, we take {', '.join(ours.accepts)} only",
            "set both clusters up with the same --tunnel",
        )


def _family_faults(ours: Abilities, theirs: Abilities, other: str) -> Iterator[Fault]:
    if ours.families is None or theirs.families is None:
        return
    for side, families in (("this side", ours.families), (other, theirs.families)):
        if not families:
            yield Fault(
                f"{side} has no IP version of which every node has an underlay address",
                "give each node's underlay an address of one version",
            )
    if not set(ours.families) & set(theirs.families):
        yield Fault(
            f"our underlay has {_versions(ours.families)}, that of {other} "
            f"{_versions(theirs.families)}",
            "give the underlay of both sides addresses of one IP version",
        )


def _shared(ours: Abilities, theirs: Abilities) -> str:
    if ours.families is None or theirs.families is None:
        return "not said"
    return f"both underlays have {_versions(set(ours.families) & set(theirs.families))}"


def _versions(families: Iterable[int]) -> str:
    return " and ".join(f"IPv{version}" for version in sorted(families))


def _identity_faults(one: int, another: int, other: str) -> Iterator[Fault]:
    if one != another:
        yield Fault(
            f"maxConnectedClusters is {one} here and {another} in {other}: identities would be "
            "cut into cluster and number differently",
            f"set it to {one} in every cluster of the mesh",
        )
