"""The local API's routes of remotes: `mesh add`, `mesh access`, `mesh troubleshoot`."""

from __future__ import annotations

from typing import Any

import attrs

from meshnet.agent.api.server import Request, Route
from meshnet.agent.joining import Joining
from meshnet.agent.troubleshooting import Troubleshooting
from meshnet.model.addressing import parse_prefix
from meshnet.model.remote import EtcdConfig


@attrs.frozen(kw_only=True)
class PeerRequest:
    """`mesh add`, its files read."""

    cluster: str
    config: EtcdConfig
    pod_cidrs: tuple[str, ...]


@attrs.frozen(kw_only=True)
class AccessRequest:
    cluster: str
    renew: bool = False


def peering_routes(joining: Joining, troubleshooting: Troubleshooting) -> list[Route]:
    async def add(request: Request) -> Any:
        wanted = request.structured(PeerRequest)
        pod_cidrs = tuple(parse_prefix(text) for text in wanted.pod_cidrs)
        return await joining.add(wanted.cluster, wanted.config, pod_cidrs)

    async def access(request: Request) -> Any:
        wanted = request.structured(AccessRequest)
        return await joining.access(wanted.cluster, renew=wanted.renew)

    async def troubleshoot(request: Request) -> Any:
        return await troubleshooting.climb(request.query.get("cluster"))

    return [
        Route("GET", "/v1/mesh/troubleshoot", troubleshoot),
        Route("POST", "/v1/mesh/peers", add),
        Route("POST", "/v1/mesh/access", access),
    ]
