"""`conntrack` as the control plane sees it: flows for people, a count, and a broom.

The programs own the rows; they take no notice of one past its expiry, so sweeping only makes
room. Time is theirs: ticks of 2^30 ns of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import struct
import time
from typing import Any

from meshnet.dataplane import abi, rows
from meshnet.dataplane.bpf import Map

_FLAG = abi.ConntrackFlag


class FlowMap:
    """Or `nat`, or `service_flows`: rows with an expiry. `sweep` may run in a thread beside
    everything else: it alone deletes rows."""

    def __init__(self, opened: Map, expiry: struct.Struct) -> None:
        """`expiry`: where it is in a value."""
        self._map = opened
        self._expiry = expiry
        self.entries = 0
        """Live rows when it was last swept."""

    def sweep(self) -> int:
        """Take out what is over; answers how many rows went. 0.3 us a row that stays.

        A flow whose row was over and begins again in this moment may lose the new row: its
        next packet makes another, as after an eviction.
        """
        now, size = now_ticks(), self._map.spec.key_size
        live, gone = 0, 0
        for keys, values, count in self._map.batches():
            over = [
                keys[place * size : (place + 1) * size]
                for place, (expires,) in enumerate(self._expiry.iter_unpack(values))
                if place < count and expires <= now
            ]
            self._map.delete_many(over)
            gone += len(over)
            live += count - len(over)
        self.entries = live
        return gone


CONNTRACK_EXPIRY = struct.Struct("=I12x")
NAT_EXPIRY = struct.Struct("=16xI4x")
SERVICE_FLOW_EXPIRY = struct.Struct("=40xI8x")


def now_ticks() -> int:
    return time.monotonic_ns() >> abi.ClockUnit.TICK_SHIFT


def expires_s(ticks: int) -> int:
    """What is left of a row's time; negative once it is over."""
    left_ns: int = (ticks - now_ticks()) << abi.ClockUnit.TICK_SHIFT
    return round(left_ns / 1e9)


def unpack_row(key: bytes, value: bytes) -> dict[str, Any]:
    """One flow with named fields."""
    flow, row = rows.unpack(abi.ConntrackKey, key), rows.unpack(abi.Conntrack, value)
    return {
        "endpoint": str(rows.known_address(bytes(flow.endpoint))),
        "peer": str(rows.known_address(bytes(flow.peer))),
        "endpoint_port": flow.endpoint_port,
        "peer_port": flow.peer_port,
        "protocol": rows.protocol_name(flow.protocol),
        "began": "peer" if row.flags & _FLAG.PEER_BEGAN else "endpoint",
        "guessed": bool(row.flags & _FLAG.GUESSED),
        "by_service": bool(row.flags & _FLAG.SERVICE),
        "state": _state(row),
        "remote_identity": row.remote_identity,
        "policy_epoch": row.policy_epoch,
        "expires_s": expires_s(row.expires),
    }


def _state(row: abi.Conntrack) -> str:
    if row.flags & _FLAG.CLOSED:
        return "closed"
    return "established" if row.flags & _FLAG.ANSWERED else "new"
