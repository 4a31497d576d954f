"""What policy says of a protocol and port, as the dataplane's maps hold it."""

from __future__ import annotations

import enum

import attrs

ANY_PROTOCOL_BITS = 32
"""Length of a key that says the class alone; 8 more with a protocol, 16 more with a port."""
PROTOCOL_BITS = 40


class Verdict(enum.IntEnum):
    DENY = 0
    ALLOW = 1
    AUDIT = 2
    """Passes, and is reported as what would have been denied."""


@attrs.frozen(order=True)
class PortRow:
    """One row: the first `length` bits of (class, protocol, port) decide."""

    length: int
    protocol: int
    port: int
    verdict: Verdict
    rule: int
