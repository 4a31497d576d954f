"""The local API's routes for policy."""

from __future__ import annotations

from typing import Any

from meshnet.agent import policy_view
from meshnet.agent.api.manifest_routes import documents_of
from meshnet.agent.api.server import Request, Route
from meshnet.agent.context import Context
from meshnet.agent.why import why
from meshnet.errors import UsageError


def policy_routes(context: Context) -> list[Route]:
    async def listed(_: Request) -> Any:
        return policy_view.policies(context)

    async def explain(request: Request) -> Any:
        query = request.query
        if not {"source", "destination"} <= query.keys():
            raise UsageError("why needs source and destination")
        return why(context, query["source"], query["destination"], query.get("port"))

    async def plan(request: Request) -> Any:
        return policy_view.plan(context, documents_of(request))

    return [
        Route("GET", "/v1/policies", listed),
        Route("GET", "/v1/why", explain),
        Route("POST", "/v1/policies/plan", plan),
    ]
