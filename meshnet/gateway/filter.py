"""What other clusters may read of ours. Pure: a key or a range in, a reason or None out.

The list is design section 3's, and manifests for the whole mesh (docs/design/0013). Both ends of a
range are looked at: etcd's own role check looked at one and was bypassed that way (facts of etcd
3.4, GHSA-xg4h-6gfc-h4m8).
"""

from __future__ import annotations

import attrs

from meshnet.registry import schema

FROM_KEY = b"\0"
"""As a range's end: every key from the first one on, to the end of the store."""


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that start with `prefix`, whose last byte is not 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


@attrs.frozen
class Exports:
    """The keys and ranges that one cluster shows to others."""

    keys: frozenset[bytes]
    ranges: tuple[tuple[bytes, bytes], ...]
    """Half-open: [first, end)."""

    @classmethod
    def of(cls, cluster: str) -> Exports:
        prefixes = (
            schema.canaries(cluster),
            schema.nodes(cluster),
            schema.services(cluster),
            schema.IPS,
            schema.IDENTITIES,
            schema.shared_manifests(cluster),
            # Cilium reads the heartbeat as a prefix; no other key starts with it
            schema.HEARTBEAT,
        )
        encoded = [prefix.encode() for prefix in prefixes]
        return cls(
            # A key and not a range: as a prefix, `east` would show the mirror of `east2` too
            keys=frozenset({schema.cluster_config(cluster).encode()}),
            ranges=tuple((prefix, prefix_end(prefix)) for prefix in encoded),
        )

    def refusal(self, key: bytes, range_end: bytes) -> str | None:
        """Why a Range or Watch of [key, range_end) is not allowed; None when it is.

        An empty `range_end` means the key alone, as in etcd's API.
        """
        if not range_end:
            allowed = key in self.keys or any(first <= key < end for first, end in self.ranges)
            return None if allowed else f"{_spoken(key)} is not exported to other clusters"
        if range_end == FROM_KEY:
            return f"a range from {_spoken(key)} to the end of the store is not exported"
        if any(first <= key < range_end <= end for first, end in self.ranges):
            return None
        return f"range {_spoken(key)} to {_spoken(range_end)} is not exported to other clusters"


def _spoken(key: bytes) -> str:
    """Short, one line, and safe in a gRPC status message."""
    return repr(key[:100].decode("ascii", "backslashreplace"))
