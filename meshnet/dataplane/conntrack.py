"""`conntrack` as the control plane sees it: flows for people, and a count.

The programs own the rows. Time is theirs: ticks of 2^30 ns of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from meshnet.dataplane import abi, rows

_PROTOCOLS = {
    socket.IPPROTO_TCP: "tcp",
    socket.IPPROTO_UDP: "udp",
    socket.IPPROTO_ICMP: "icmp",
    socket.IPPROTO_ICMPV6: "icmpv6",
    132: "sctp",
}
_FLAG = abi.ConntrackFlag


def now_ticks() -> int:
    return time.monotonic_ns() >> abi.ClockUnit.TICK_SHIFT


def unpack_row(key: bytes, value: bytes) -> dict[str, Any]:
    """One flow with named fields; `expires_s` is what is left, negative once it is over."""
    flow, row = rows.unpack(abi.ConntrackKey, key), rows.unpack(abi.Conntrack, value)
    return {
        "endpoint": str(rows.known_address(bytes(flow.endpoint))),
        "peer": str(rows.known_address(bytes(flow.peer))),
        "endpoint_port": flow.endpoint_port,
        "peer_port": flow.peer_port,
        "protocol": _PROTOCOLS.get(flow.protocol, str(flow.protocol)),
        "began": "peer" if row.flags & _FLAG.PEER_BEGAN else "endpoint",
        "guessed": bool(row.flags & _FLAG.GUESSED),
        "state": _state(row),
        "remote_identity": row.remote_identity,
        "policy_epoch": row.policy_epoch,
        "expires_s": round((row.expires - now_ticks()) * 2**abi.ClockUnit.TICK_SHIFT / 1e9),
    }


def _state(row: abi.Conntrack) -> str:
    if row.flags & _FLAG.CLOSED:
        return "closed"
    return "established" if row.flags & _FLAG.ANSWERED else "new"
