"""The local API's routes for manifests."""

from __future__ import annotations

from typing import Any

import attrs

from meshnet.agent.api.server import Request, Route
from meshnet.agent.effect import Effect
from meshnet.agent.manifests import Change, Manifests
from meshnet.errors import NotFound, UsageError
from meshnet.manifests.kinds import find_kind, read_manifest
from meshnet.model.manifest import Manifest, ManifestKey

WAIT_S = 30.0
"""How long `--wait` waits for every node."""


def manifest_routes(manifests: Manifests, effect: Effect) -> list[Route]:
    async def get(request: Request) -> Any:
        """This cluster's, then what others applied for the whole mesh; one by name: of others
        when this cluster has none."""
        query = request.query
        asked = query.get("kind"), query.get("namespace"), query.get("name")
        others = [each.shown for each in await manifests.of_others(*asked)]
        try:
            own = [each.document for each in await manifests.find(*asked)]
        except NotFound:
            if not others:
                raise
            own = []
        return own if own and "name" in query else own + others

    async def apply(request: Request) -> Any:
        changes = await manifests.apply(documents_of(request))
        await in_effect(request, changes)
        return _answers(changes)

    async def diff(request: Request) -> Any:
        return _answers(await manifests.diff(documents_of(request)))

    async def delete(request: Request) -> Any:
        changes = await manifests.delete([_key(each) for each in request.field("keys")])
        await in_effect(request, changes)
        return _answers(changes)

    async def in_effect(request: Request, changes: list[Change]) -> None:
        """Where the caller waits: until every node has it."""
        revision = max((change.revision for change in changes), default=0)
        if request.optional("wait", False) and revision:
            namespaces = any(change.kind == "Namespace" for change in changes)
            await effect.wait(revision, timeout_s=WAIT_S, identities=namespaces)

    return [
        Route("GET", "/v1/manifests", get),
        Route("POST", "/v1/manifests/apply", apply),
        Route("POST", "/v1/manifests/diff", diff),
        Route("POST", "/v1/manifests/delete", delete),
    ]


def documents_of(request: Request) -> list[Manifest]:
    """Every document is checked before the first is stored."""
    documents = request.field("documents")
    if not isinstance(documents, list):
        raise UsageError(f"{request.method} {request.path}: documents must be a list")
    return [read_manifest(document) for document in documents]


def _key(given: Any) -> ManifestKey:
    if not isinstance(given, dict) or not {"kind", "namespace", "name"} <= given.keys():
        raise UsageError("a key has kind, namespace and name")
    return ManifestKey(find_kind(str(given["kind"])).name, given["namespace"], given["name"])


def _answers(changes: list[Change]) -> list[dict[str, Any]]:
    return [attrs.asdict(change) for change in changes]
