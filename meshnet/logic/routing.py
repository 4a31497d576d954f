"""How packets travel to another node, decided from what is known of the way. Pure.

Native where the underlay routes between the two nodes and a probe came through: on-link
(`auto`), or behind routers that the operator says know the PodCIDRs (`native`). Else in the
cluster's tunnel, which every receiver takes at all times. So a wrong or late answer costs a
few headers and never a packet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs

from meshnet.model.addressing import Address
from meshnet.model.cluster import Routing, TunnelProtocol
from meshnet.model.dataplane import Mode, Modes
from meshnet.model.kernel import Hop

FAMILIES = (4, 6)


@attrs.frozen(kw_only=True)
class PeerPath:
    """What a node's row says of the way to it."""

    modes: Modes
    next_hops: tuple[Address, ...] = ()
    """At most one of a family, all by `ifindex`. None: the kernel's routing table is asked."""
    ifindex: int = 0
    """0: by the underlay."""

    @property
    def summary(self) -> Mode:
        """In one word: native where anything is."""
        return self.modes.ipv4 if self.modes.ipv4 is Mode.NATIVE else self.modes.ipv6

    def mode(self, family: int) -> Mode:
        return self.modes.ipv4 if family == 4 else self.modes.ipv6

    def next_hop(self, family: int) -> Address | None:
        """For a packet of that family as it is on the wire: IPv4 may pass by an IPv6 hop
        (RFC 5549); the kernel knows no way for the reverse."""
        families = (4, 6) if family == 4 else (6,)
        by_family = {hop.version: hop for hop in self.next_hops}
        return next((by_family[f] for f in families if f in by_family), None)


def by_tunnel(protocol: TunnelProtocol) -> PeerPath:
    """The way to a node of which nothing is known but its address."""
    mode = Mode(protocol.value)
    return PeerPath(modes=Modes(ipv4=mode, ipv6=mode))


def candidates(routing: Routing, hops: Mapping[int, Hop]) -> dict[int, Hop]:
    """Which families of endpoints' packets might travel natively, and by which hop.

    Args:
        hops: on the way to the node's underlay addresses, by IP version.
    """
    if routing is Routing.TUNNEL:
        return {}
    usable = {
        version: hop for version, hop in hops.items() if hop.on_link or routing is Routing.NATIVE
    }
    found = dict(usable)
    if 4 not in found and 6 in found:
        found[4] = found[6]
    return found


def decide(
    routing: Routing,
    tunnel: TunnelProtocol,
    hops: Mapping[int, Hop],
    confirmed: Collection[int],
    *,
    outer: int,
) -> PeerPath:
    """The way to one node.

    Args:
        hops: as for `candidates`.
        confirmed: families of which a native probe was answered lately.
        outer: IP version of the tunnel to it.
    """
    way = by_tunnel(tunnel)
    native = {f: hop for f, hop in candidates(routing, hops).items() if f in confirmed}
    first = hops.get(outer) or next(iter(native.values()), None)
    if first is None:
        return way
    # a row has one interface: what leaves by another one takes the tunnel
    same = {version: hop.address for version, hop in hops.items() if hop.ifindex == first.ifindex}
    native = {f: hop for f, hop in native.items() if hop.ifindex == first.ifindex}
    for family, hop in native.items():
        if hop is not hops.get(family):  # IPv4 by IPv6's hop: a router of its own is none for it
            same.pop(family, None)
    return PeerPath(
        modes=Modes(
            ipv4=Mode.NATIVE if 4 in native else way.modes.ipv4,
            ipv6=Mode.NATIVE if 6 in native else way.modes.ipv6,
        ),
        next_hops=tuple(same[version] for version in sorted(same)),
        ifindex=first.ifindex,
    )
