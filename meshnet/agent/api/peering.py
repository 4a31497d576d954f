"""The local API's routes for clusters of another kind: `mesh add`, `mesh access`."""

from __future__ import annotations

from typing import Any

import attrs

from meshnet.agent.api.server import Request, Route
from meshnet.agent.joining import Joining
from meshnet.model.addressing import parse_prefix
from meshnet.model.remote import EtcdConfig


@attrs.frozen(kw_only=True)
class PeerRequest:
    """`mesh add`, its files read."""

    cluster: str
    config: EtcdConfig
    pod_cidrs: tuple[str, ...]


def peering_routes(joining: Joining) -> list[Route]:
    async def add(request: Request) -> Any:
        wanted = request.structured(PeerRequest)
        pod_cidrs = tuple(parse_prefix(text) for text in wanted.pod_cidrs)
        return await joining.add(wanted.cluster, wanted.config, pod_cidrs)

    async def access(request: Request) -> Any:
        return await joining.access(request.field("cluster"))

    return [
        Route("POST", "/v1/mesh/peers", add),
        Route("POST", "/v1/mesh/access", access),
    ]
