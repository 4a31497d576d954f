"""What is wrong with a cluster's addresses: blocks against owners, endpoints against blocks."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from meshnet.model.addressing import PodCIDR, Prefix, contains, overlaps
from meshnet.model.endpoint import IpEntry


class Fault(enum.StrEnum):
    BLOCK_OUTSIDE = "block-outside"
    """Of every PodCIDR of the cluster."""
    BLOCKS_OVERLAP = "blocks-overlap"
    BLOCK_NOT_HELD = "block-not-held"
    """A live node uses it, and its allocation says otherwise."""
    OWNER_GONE = "owner-gone"
    """Its owner has no lease: it is down, or gone for good."""
    ADDRESS_OUTSIDE = "address-outside"
    """Of the blocks of its node."""
    ADDRESS_ORPHANED = "address-orphaned"
    """Its node is gone, and no lease will take its key away."""


@attrs.frozen(kw_only=True)
class Finding:
    """Field names are JSON keys."""

    id: Fault
    severity: str = "error"
    subject: str
    """A block or an address."""
    evidence: str
    fix: str
    key: str = ""
    """In etcd: what `--fix` deletes."""


@attrs.frozen
class Announced:
    """An endpoint's address as it lies in etcd."""

    key: str
    entry: IpEntry
    leased: bool


def check(
    pools: Sequence[Prefix],
    blocks: Sequence[PodCIDR],
    nodes: Mapping[str, Sequence[Prefix]],
    addresses: Iterable[Announced],
) -> list[Finding]:
    """Every fault, blocks first.

    Args:
        pools: the PodCIDRs of the cluster.
        blocks: the nodes' allocations; those that were given back have no node.
        nodes: live ones, and the blocks that each announces.

    Cost: linear in addresses, times the few blocks of a node.
    """
    held = [block for block in blocks if block.node]
    return [
        *_blocks(pools, held, nodes),
        *_announced_blocks(held, nodes),
        *_addresses(held, nodes, addresses),
    ]


def _blocks(
    pools: Sequence[Prefix], held: Sequence[PodCIDR], nodes: Mapping[str, Sequence[Prefix]]
) -> Iterator[Finding]:
    for block in held:
        if not any(contains(pool, block.network.network_address) for pool in pools):
            yield Finding(
                id=Fault.BLOCK_OUTSIDE,
                subject=str(block.network),
                evidence=f"node {block.node} holds it, and no PodCIDR of the cluster contains it",
                fix=f"`meshnet cluster leave` on {block.node}, then join again",
            )
        if block.node not in nodes:
            yield Finding(
                id=Fault.OWNER_GONE,
                severity="warning",
                subject=str(block.network),
                evidence=f"node {block.node} holds it, and is not there",
                fix=f"start its agent; if it is gone for good: `meshnet node delete {block.node}`",
            )
    yield from _overlaps(held)


def _overlaps(held: Sequence[PodCIDR]) -> Iterator[Finding]:
    """In order of addresses a block that lies in another follows it."""
    outer: PodCIDR | None = None
    for block in sorted(held, key=_place):
        if outer is None or not overlaps(outer.network, block.network):
            outer = block
            continue
        yield Finding(
            id=Fault.BLOCKS_OVERLAP,
            subject=str(block.network),
            evidence=f"node {block.node} holds it; node {outer.node} holds {outer.network}",
            fix=f"`meshnet cluster leave` on {block.node}, then join again",
        )


def _place(block: PodCIDR) -> tuple[int, int, int]:
    network = block.network
    return network.version, int(network.network_address), network.prefixlen


def _announced_blocks(
    held: Sequence[PodCIDR], nodes: Mapping[str, Sequence[Prefix]]
) -> Iterator[Finding]:
    owner = {block.network: block.node for block in held}
    for node, networks in nodes.items():
        for network in networks:
            if owner.get(network) != node:
                holder = f"node {owner[network]}" if network in owner else "nobody"
                yield Finding(
                    id=Fault.BLOCK_NOT_HELD,
                    subject=str(network),
                    evidence=f"node {node} uses it, and {holder} holds it",
                    fix=f"`meshnet cluster leave` on {node}, then join again",
                )


def _addresses(
    held: Sequence[PodCIDR],
    nodes: Mapping[str, Sequence[Prefix]],
    addresses: Iterable[Announced],
) -> Iterator[Finding]:
    blocks: dict[str, list[Prefix]] = {}
    for block in held:
        blocks.setdefault(block.node, []).append(block.network)
    for each in addresses:
        node, address = each.entry.node, each.entry.prefix.network_address
        if not node:
            continue  # another than meshnet announced it, and may
        whose = f"endpoint {each.entry.namespace}/{each.entry.name} of node {node}"
        if node not in nodes and not each.leased:
            yield Finding(
                id=Fault.ADDRESS_ORPHANED,
                subject=str(address),
                evidence=f"{whose}, which is not there, and the key has no lease",
                fix="`meshnet ipam check --fix` deletes the key",
                key=each.key,
            )
        elif not any(contains(block, address) for block in blocks.get(node, ())):
            yield Finding(
                id=Fault.ADDRESS_OUTSIDE,
                subject=str(address),
                evidence=f"{whose}, which holds no block that has it",
                fix=f"`meshnet endpoint delete` it on {node} and run it again",
            )
