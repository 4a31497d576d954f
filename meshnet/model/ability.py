"""What a side of a join can do, as it says itself: compared before anything is written."""

from __future__ import annotations

import datetime

import attrs

PROTOCOL = 1
"""Of enrolment. A side that cannot be understood by an older one says a higher number."""
MAX_CONNECTED_CLUSTERS = 255
"""How a 24-bit identity is cut into cluster and number; the whole mesh must agree (Cilium's
`maxConnectedClusters`: 255 or 511)."""


@attrs.frozen(kw_only=True)
class Abilities:
    protocol: int = PROTOCOL
    tunnel: str = "vxlan"
    """What it sends tunnelled packets in."""
    accepts: tuple[str, ...] = ("vxlan",)
    """What it takes off again when it arrives."""
    families: tuple[int, ...] | None = None
    """IP versions that all of its nodes have an underlay address of; None: it did not say."""
    max_connected_clusters: int = MAX_CONNECTED_CLUSTERS
    now: datetime.datetime | None = None
    """Its clock, at the moment it said this."""
