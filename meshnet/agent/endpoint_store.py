"""The node's endpoints on disk: what an agent needs to take them over after a restart.

One JSON file an endpoint under `/run/meshnet/endpoints/`, which dies with the boot as the
network namespaces do. Writer and reader: agent/endpoints.py.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import cattrs
import structlog

from meshnet.model.endpoint import Endpoint

_converter = cattrs.Converter()
for _kind in (IPv4Address, IPv6Address):
    _converter.register_unstructure_hook(_kind, str)
    _converter.register_structure_hook(_kind, lambda text, kind: kind(text))

_log = structlog.get_logger()


class EndpointStore:
    """Files named by endpoint id, written whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, endpoint: Endpoint) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._path(endpoint.id)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(_converter.unstructure(endpoint)))
        temporary.replace(path)

    def delete(self, endpoint_id: int) -> None:
        self._path(endpoint_id).unlink(missing_ok=True)

    def load(self) -> list[Endpoint]:
        """Every readable file. A broken one is named in the log and left for an operator."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(_converter.structure(json.loads(path.read_text()), Endpoint))
            except (ValueError, cattrs.BaseValidationError) as error:
                _log.error("endpoint file is broken", path=str(path), error=str(error))
        return found

    def _path(self, endpoint_id: int) -> Path:
        return self._directory / f"{endpoint_id}.json"
