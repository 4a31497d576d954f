"""`policy` and `policy_classes`: who a peer is to a policy, and what its class may do."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping

from meshnet.dataplane import abi
from meshnet.dataplane.bpf import Map
from meshnet.errors import MapFull
from meshnet.model.dataplane import PolicyKey
from meshnet.model.policy import PROTOCOL_NAMES, Direction
from meshnet.model.ruling import ANY_PROTOCOL_BITS, PortRow, Verdict

_U32 = struct.Struct("=I")
_KEY = struct.Struct("=III")
_CLASS_KEY = struct.Struct("=IIBx2s")
_RULING = struct.Struct("=II")
_DIRECTIONS = {
    Direction.EGRESS: abi.Direction.EGRESS,
    Direction.INGRESS: abi.Direction.INGRESS,
}
_DIRECTION_NAMES = {int(number): direction for direction, number in _DIRECTIONS.items()}


def pack_key(key: PolicyKey) -> bytes:
    return _KEY.pack(key.policy_id, _DIRECTIONS[key.direction], key.remote)


def unpack_key(data: bytes) -> PolicyKey:
    policy_id, direction, remote = _KEY.unpack(data)
    return PolicyKey(policy_id, _DIRECTION_NAMES[direction], remote)


def pack_class_key(number: int, row: PortRow) -> bytes:
    return _CLASS_KEY.pack(row.length, number, row.protocol, row.port.to_bytes(2, "big"))


class PolicyMaps:
    """Writes both maps and remembers what is in them; what an earlier agent left counts too."""

    def __init__(self, policy: Map, classes: Map) -> None:
        self._policy = policy
        self._classes = classes
        self.rows: dict[PolicyKey, int] = {
            unpack_key(key): _U32.unpack(value)[0] for key, value in policy.items()
        }
        self._keys: defaultdict[int, list[bytes]] = defaultdict(list)
        for key, _ in classes.items():
            self._keys[_CLASS_KEY.unpack(key)[1]].append(key)

    @property
    def classes(self) -> set[int]:
        """Those that have rows."""
        return set(self._keys)

    def write(
        self, classes: Mapping[int, Iterable[PortRow]], rows: Mapping[PolicyKey, int]
    ) -> None:
        """Classes first, so that no row names one that is not complete; changed rows last, since
        they find room in any case. A class has a number that was never used.

        Raises:
            MapFull: nothing is added and no row changed.
        """
        rulings = {
            pack_class_key(number, port): _RULING.pack(port.rule, port.verdict)
            for number, ports in classes.items()
            for port in ports
        }
        added = [pack_key(key) for key in rows if key not in self.rows]
        packed = {pack_key(key): _U32.pack(number) for key, number in rows.items()}
        try:
            self._classes.update_many(rulings.items())
            self._policy.update_many((key, packed.pop(key)) for key in added)
            self._policy.update_many(packed.items())
        except MapFull:
            _take_back(self._policy, added)
            _take_back(self._classes, rulings)
            raise
        for key in rulings:
            self._keys[_CLASS_KEY.unpack(key)[1]].append(key)
        self.rows.update(rows)

    def remove(self, rows: Iterable[PolicyKey], classes: Iterable[int]) -> None:
        there = [key for key in rows if self.rows.pop(key, None) is not None]
        self._policy.delete_many([pack_key(key) for key in there])
        gone = [key for number in classes for key in self._keys.pop(number, ())]
        for key in gone:  # the kernel has no batch of deletions for longest-prefix maps
            self._classes.delete(key)


def _take_back(written: Map, keys: Iterable[bytes]) -> None:
    """Delete those of the keys that a map took before it was full."""
    for key in keys:
        if not written.delete(key):
            return


def unpack_policy(key: bytes, value: bytes) -> dict[str, object]:
    read = unpack_key(key)
    return {
        "policy_id": read.policy_id,
        "direction": read.direction.value,
        "remote": read.remote,
        "class": _U32.unpack(value)[0],
    }


def unpack_class(key: bytes, value: bytes) -> dict[str, object]:
    """Ports as people write them; `any` where the row says nothing of them."""
    length, number, protocol, port = _CLASS_KEY.unpack(key)
    rule, verdict = _RULING.unpack(value)
    first = int.from_bytes(port, "big")
    bits = max(0, length - 48)
    last = first + (1 << (16 - bits)) - 1
    ports = "any" if not bits else str(first) if first == last else f"{first}-{last}"
    name = PROTOCOL_NAMES.get(protocol, str(protocol))
    return {
        "class": number,
        "protocol": "any" if length == ANY_PROTOCOL_BITS else name,
        "ports": ports,
        "verdict": Verdict(verdict).name.lower(),
        "rule": rule,
    }
