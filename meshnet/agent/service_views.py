"""`service list` and `service show`: cli.md's JSON, made from the last pass."""

from __future__ import annotations

from typing import Any

from meshnet.agent.services import Services
from meshnet.errors import NotFound
from meshnet.logic.services import Resolved
from meshnet.model.service import BackendAddress

Json = dict[str, Any]


def services(found: Services) -> list[Json]:
    hits = found.hits()
    return [_row(found.resolved[key], hits) for key in sorted(found.resolved)]


def service(found: Services, namespace: str, name: str) -> Json:
    """Raises NotFound."""
    resolved = found.resolved.get((namespace, name))
    if resolved is None:
        raise NotFound(f"no service {namespace}/{name}: `meshnet service list` shows all there are")
    return _row(resolved, found.hits())


def _row(resolved: Resolved, hits: dict[BackendAddress, int]) -> Json:
    service = resolved.service
    return {
        "name": service.name,
        "namespace": service.namespace,
        "type": service.type.value,
        "headless": service.headless,
        "external_name": service.external_name,
        "addresses": [str(address) for address in (*resolved.addresses, *service.external_ips)],
        "frontends": [
            {
                "address": str(frontend.address),
                "port": frontend.port,
                "protocol": frontend.protocol.name.lower(),
            }
            for frontend, _ in resolved.frontends()
        ],
        "backends": [
            {
                "address": str(backend.at.address),
                "port": backend.at.port,
                "protocol": backend.at.protocol.name.lower(),
                "port_name": backend.port_name,
                "cluster": backend.cluster,
                "node": backend.node,
                "name": backend.name,
                "state": backend.state.value,
                "reason": backend.reason,
                "weight": backend.weight,
                "hits": hits.get(backend.at, 0),
            }
            for port in resolved.ports
            for backend in port.backends
        ],
        "global": service.sharing.is_global,
        "affinity_s": service.affinity_s,
    }
