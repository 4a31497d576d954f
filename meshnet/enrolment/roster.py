"""The nodes that are live in our own cluster now."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from meshnet.errors import PoisonedKey
from meshnet.kvstore.api import KV
from meshnet.logic.agreement import families_of
from meshnet.model.ability import Abilities
from meshnet.model.cluster import GATEWAY_PORT, Cluster, TunnelProtocol
from meshnet.model.node import Node
from meshnet.registry import codec, schema
from meshnet.registry.store import list_items

GatewaysOf = Callable[[tuple[Node, ...]], tuple[str, ...]]


async def live_nodes(kv: KV, cluster: str) -> tuple[Node, ...]:
    """Those whose lease holds. A key that cannot be read is no node to anybody."""
    stored = await list_items(kv, schema.nodes(cluster), codec.decode_node, _told_elsewhere)
    return tuple(node.item for node in stored)


def _told_elsewhere(_: PoisonedKey) -> None:
    """Whoever follows the prefix reports it."""


def abilities_of(
    cluster: Cluster, nodes: tuple[Node, ...], *, now: datetime | None = None
) -> Abilities:
    """What a cluster of these nodes can do. `now`: its clock; by default this host's."""
    return Abilities(
        tunnel=cluster.tunnel.value,
        accepts=tuple(protocol.value for protocol in TunnelProtocol),
        families=families_of(nodes) if nodes else None,
        now=now or datetime.now(UTC),
    )


def gateways_of(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    """Every node has a gateway, on the usual port of its preferred address."""
    hosts = (node.addresses[0] for node in nodes if node.addresses)
    return tuple(
        f"[{host}]:{GATEWAY_PORT}" if host.version == 6 else f"{host}:{GATEWAY_PORT}"
        for host in hosts
    )
