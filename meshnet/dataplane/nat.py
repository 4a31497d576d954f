"""`nat` as the control plane sees it: masqueraded flows for people, both rows of each.

The programs own the rows. Time is theirs: ticks of 2^30 ns of CLOCK_MONOTONIC.
"""

from __future__ import annotations

from typing import Any

from meshnet.dataplane import abi, rows
from meshnet.dataplane.conntrack import expires_s

_FLAG = abi.NatFlag
_CLOSED = _FLAG.FIN_OUT | _FLAG.FIN_BACK


def unpack_row(key: bytes, value: bytes) -> dict[str, Any]:
    """One way of one flow: what has `local` in it gets `translated` in its place."""
    flow, row = rows.unpack(abi.NatKey, key), rows.unpack(abi.Nat, value)
    return {
        "local": str(rows.known_address(bytes(flow.local))),
        "local_port": flow.local_port,
        "remote": str(rows.known_address(bytes(flow.remote))),
        "remote_port": flow.remote_port,
        "protocol": rows.protocol_name(flow.protocol),
        "translated": str(rows.known_address(bytes(row.address))),
        "translated_port": row.port,
        "state": state(row.flags),
        "expires_s": expires_s(row.expires),
    }


def state(flags: int) -> str:
    """In a word, what became of a flow."""
    if flags & _FLAG.RESET or flags & _CLOSED == _CLOSED:
        return "closed"
    return "answered" if flags & _FLAG.ANSWERED else "new"
