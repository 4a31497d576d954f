"""The local API: one handler a route, each a few lines over the agent's parts."""

from __future__ import annotations

from typing import Any

import attrs

from meshnet.agent import authorities, service_views, views
from meshnet.agent.api.manifest_routes import manifest_routes
from meshnet.agent.api.peering import peering_routes
from meshnet.agent.api.policy_routes import policy_routes
from meshnet.agent.api.server import Request, Route
from meshnet.agent.context import Context
from meshnet.agent.departure import Departure
from meshnet.agent.endpoint_facts import EndpointRequest
from meshnet.agent.joining import Joining
from meshnet.agent.services import Services
from meshnet.agent.troubleshooting import Troubleshooting
from meshnet.errors import UsageError
from meshnet.logic import settings

SCOPES = ("node", "cluster", "mesh")


def routes(
    context: Context, joining: Joining, departure: Departure, troubleshooting: Troubleshooting
) -> list[Route]:
    return [
        *_reading(context),
        *_endpoints(context),
        *_membership(joining, departure),
        *manifest_routes(context.manifests, context.effect),
        *policy_routes(context),
        *peering_routes(joining, troubleshooting),
        *_cluster(context),
    ]


def _cluster(context: Context) -> list[Route]:
    async def show_ca(_: Request) -> Any:
        return authorities.status(context.authorities, context.pki)

    async def rotate_ca(_: Request) -> Any:
        await context.authorities.rotate()
        return authorities.status(context.authorities, context.pki)

    async def show_settings(_: Request) -> Any:
        return settings.get_all(context.cluster_settings.cluster)

    async def show_setting(request: Request) -> Any:
        key = request.params["key"]
        return {"key": key, "value": settings.get(context.cluster_settings.cluster, key)}

    async def set_setting(request: Request) -> Any:
        return await context.cluster_settings.set(
            request.params["key"], str(request.field("value"))
        )

    async def check_ipam(_: Request) -> Any:
        return [attrs.asdict(finding) for finding in await context.ipam.check()]

    async def fix_ipam(_: Request) -> Any:
        return [attrs.asdict(finding) for finding in await context.ipam.fix()]

    return [
        Route("GET", "/v1/ipam", check_ipam),
        Route("POST", "/v1/ipam/fix", fix_ipam),
        Route("GET", "/v1/ca", show_ca),
        Route("POST", "/v1/ca/rotate", rotate_ca),
        Route("GET", "/v1/config", show_settings),
        Route("GET", "/v1/config/{key}", show_setting),
        Route("POST", "/v1/config/{key}", set_setting),
    ]


def _reading(context: Context) -> list[Route]:
    async def endpoints(request: Request) -> Any:
        scope = request.query.get("scope", "node")
        if scope not in SCOPES:
            raise UsageError(f"scope {scope!r} is none of {', '.join(SCOPES)}")
        return views.endpoints(context, scope)

    async def identity(request: Request) -> Any:
        number = request.params["number"]
        if not number.isdecimal():
            raise UsageError(f"identity {number!r} is not a number")
        return views.identity(context, int(number))

    async def node(request: Request) -> Any:
        return views.node(context, request.params["name"])

    async def map_rows(request: Request) -> Any:
        return context.dataplane.dump(request.params["name"])

    async def maps(_: Request) -> Any:
        return views.status(context)["dataplane"]["maps"]

    return [
        _get("/v1/status", context, views.status),
        _get("/v1/mesh", context, views.mesh),
        Route("GET", "/v1/endpoints", endpoints),
        _get("/v1/identities", context, views.identities),
        Route("GET", "/v1/identities/{number}", identity),
        _get("/v1/nodes", context, views.nodes),
        Route("GET", "/v1/nodes/{name}", node),
        Route("GET", "/v1/maps", maps),
        Route("GET", "/v1/maps/{name}", map_rows),
        *_drops(context),
        _get("/v1/seen", context, views.seen),
        *_services(context.services),
    ]


def _services(services: Services) -> list[Route]:
    async def listed(_: Request) -> Any:
        return service_views.services(services)

    async def one(request: Request) -> Any:
        return service_views.service(services, request.params["namespace"], request.params["name"])

    return [
        Route("GET", "/v1/services", listed),
        Route("GET", "/v1/services/{namespace}/{name}", one),
    ]


def _drops(context: Context) -> list[Route]:
    async def drop_events(request: Request) -> Any:
        last = request.query.get("last")
        if last is not None and not (last.isdecimal() and int(last)):
            raise UsageError(f"last={last!r} is no number of events from 1 on")
        return views.drop_events(context, int(last) if last else None)

    return [
        _get("/v1/drops", context, views.drops),
        Route("GET", "/v1/drops/events", drop_events),
    ]


def _get(path: str, context: Context, view: Any) -> Route:
    async def handler(_: Request) -> Any:
        return view(context)

    return Route("GET", path, handler)


def _endpoints(context: Context) -> list[Route]:
    endpoints = context.endpoints

    async def show(request: Request) -> Any:
        found = endpoints.get(request.params["namespace"], request.params["name"])
        return views.endpoint(context, found)

    async def create(request: Request) -> Any:
        wanted = request.structured(EndpointRequest)
        return views.endpoint(context, await endpoints.create(wanted))

    async def adopt(request: Request) -> Any:
        adopted = await endpoints.adopt(
            request.params["namespace"],
            request.params["name"],
            pid=request.field("owner_pid"),
            log=request.optional("log"),
        )
        return views.endpoint(context, adopted)

    async def amend(request: Request) -> Any:
        amended = await endpoints.amend(
            request.params["namespace"],
            request.params["name"],
            labels=request.optional("labels"),
            audit=request.optional("audit"),
        )
        return views.endpoint(context, amended)

    async def delete(request: Request) -> Any:
        await endpoints.delete(request.params["namespace"], request.params["name"])
        return {}

    one = "/v1/endpoints/{namespace}/{name}"
    return [
        Route("GET", one, show),
        Route("POST", "/v1/endpoints", create),
        Route("PATCH", one, adopt),
        Route("POST", f"{one}/amend", amend),
        Route("DELETE", one, delete),
    ]


def _membership(joining: Joining, departure: Departure) -> list[Route]:
    async def create_token(request: Request) -> Any:
        return await joining.create_token(
            kind=request.field("kind"),
            ttl_s=int(request.optional("ttl_s", 3600)),
            signer=bool(request.optional("signer", False)),
            for_cluster=request.optional("for_cluster"),
        )

    async def revoke_token(request: Request) -> Any:
        await joining.revoke_token(request.params["id"])
        return {}

    async def join(request: Request) -> Any:
        plan = bool(request.optional("plan", False))
        return await joining.join(request.field("token"), plan=plan)

    async def leave_mesh(request: Request) -> Any:
        await joining.leave(request.field("cluster"))
        return {}

    async def leave_cluster(request: Request) -> Any:
        await departure.leave(force=bool(request.optional("force", False)))
        return {}

    async def delete_node(request: Request) -> Any:
        revoke = request.query.get("revoke") == "1"
        await departure.delete_node(request.params["name"], revoke=revoke)
        return {}

    async def list_tokens(_: Request) -> Any:
        return await joining.list_tokens()

    return [
        Route("POST", "/v1/tokens", create_token),
        Route("GET", "/v1/tokens", list_tokens),
        Route("DELETE", "/v1/tokens/{id}", revoke_token),
        Route("POST", "/v1/mesh/join", join),
        Route("POST", "/v1/mesh/leave", leave_mesh),
        Route("POST", "/v1/leave", leave_cluster),
        Route("DELETE", "/v1/nodes/{name}", delete_node),
    ]
