"""The nodes that are live in our own cluster now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from meshnet.errors import PoisonedKey
from meshnet.kvstore.api import KV
from meshnet.model.cluster import GATEWAY_PORT
from meshnet.model.node import Node
from meshnet.registry import codec, schema

GatewaysOf = Callable[[tuple[Node, ...]], tuple[str, ...]]


async def live_nodes(kv: KV, cluster: str) -> tuple[Node, ...]:
    """Those whose lease holds. A key that cannot be read is no node to anybody."""
    nodes = []
    for pair in (await kv.list(schema.nodes(cluster))).pairs:
        with contextlib.suppress(PoisonedKey):  # whoever follows the prefix reports it
            nodes.append(codec.decode_node(pair.key, pair.value))
    return tuple(nodes)


def gateways_of(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    """Every node has a gateway, on the usual port of its preferred address."""
    hosts = (node.addresses[0] for node in nodes if node.addresses)
    return tuple(
        f"[{host}]:{GATEWAY_PORT}" if host.version == 6 else f"{host}:{GATEWAY_PORT}"
        for host in hosts
    )
