"""Who gets which addresses: a node's block out of a cluster's, an endpoint's out of a node's.

Pure: chance and the store are the caller's (registry/allocator.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_network

from meshnet.errors import PoolExhausted
from meshnet.model.addressing import Address, PodCIDR, Prefix, contains, overlaps


def free_block(
    pool: Prefix, length: int, taken: Iterable[Prefix], pick: Callable[[int], int]
) -> Prefix | None:
    """A block of `length` inside `pool` that overlaps nothing in `taken`; None: no room.

    Args:
        pick: chooses among n free blocks, a number in [0, n). Two nodes that ask at once
            should pick differently, or they meet at every try.

    Cost: grows with the number of holes, not with the size of the pool: an IPv6 pool has
    more blocks than could be counted through.
    """
    from netaddr import IPNetwork, IPSet  # 2 MB for what a node asks once in its life

    free = IPSet([IPNetwork(str(pool))])
    for prefix in taken:
        if overlaps(prefix, pool):
            free.remove(IPNetwork(str(prefix)))
    holes = [hole for hole in free.iter_cidrs() if hole.prefixlen <= length]
    blocks = [1 << (length - hole.prefixlen) for hole in holes]
    if not blocks:
        return None
    index = pick(sum(blocks))
    for hole, count in zip(holes, blocks, strict=True):
        if index < count:
            size = 1 << (pool.max_prefixlen - length)
            first = type(pool.network_address)(int(hole.first) + index * size)
            return ip_network(f"{first}/{length}")
        index -= count
    raise ValueError(f"pick chose {index} blocks too far")


class AddressPool:
    """The endpoint addresses of one PodCIDR on its node.

    Never given: the network address, the node's gateway, and IPv4's broadcast address.
    The search goes round from the address given last, so one that was given back rests
    for as long as possible: peers may still hold state about it.
    """

    def __init__(self, cidr: PodCIDR) -> None:
        self.cidr = cidr
        self._first = int(cidr.gateway) + 1
        self._last = self._first + cidr.capacity - 1
        self._next = self._first
        self._used: set[int] = set()

    @property
    def free(self) -> int:
        return self.cidr.capacity - len(self._used)

    def allocate(self) -> Address:
        """Raises PoolExhausted. Cost: steps over the used addresses in its way."""
        if not self.free:
            raise PoolExhausted(
                f"PodCIDR {self.cidr.network} of node {self.cidr.node!r} is full: all "
                f"{self.cidr.capacity} addresses are in use; delete endpoints here or run the "
                "new one on another node"
            )
        while self._next in self._used:
            self._advance()
        address = self.cidr.network[self._next - int(self.cidr.network.network_address)]
        self._used.add(self._next)
        self._advance()
        return address

    def take(self, address: Address) -> None:
        """Mark one as used, as of an endpoint that outlived the agent. Others' are no matter."""
        if contains(self.cidr.network, address) and self._first <= int(address) <= self._last:
            self._used.add(int(address))

    def release(self, address: Address) -> None:
        if contains(self.cidr.network, address):
            self._used.discard(int(address))

    def _advance(self) -> None:
        self._next = self._first if self._next >= self._last else self._next + 1
