"""Reads containerlab's topology files (`*.clab.yml`).

First containerlab's own JSON Schema, then what that cannot say: nodes that exist, two ends
a link, interface names the kernel takes. Source: https://containerlab.dev/manual/topo-def-file/
and topology/schema/PROVENANCE.md.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, ValidationError

from topology import clab_links, clab_nodes, stages
from topology.model import DEFAULT_PREFIX, Lab
from topology.source import Source, Step


def read(path: Path) -> Lab:
    """Read and check one file.

    Raises:
        ConfigError: with file, line, what is wrong, and what to do.
    """
    source = Source.read(path.absolute())
    _check_schema(source)
    topology = source.data["topology"]
    kinds = known_kinds()
    nodes = {
        name: clab_nodes.node(source, topology, name, kinds) for name in topology.get("nodes") or {}
    }
    if not nodes:
        raise source.error(
            ("topology", "nodes"), "a lab without nodes: add them under topology.nodes"
        )
    links = tuple(clab_links.links(source, topology, nodes))
    lab = Lab(
        name=source.data["name"],
        file=source.path,
        nodes=nodes,
        links=links,
        prefix=source.data.get("prefix", DEFAULT_PREFIX),
        unsaid_mtu=any("mtu" not in link for link in topology.get("links") or ()),
    )
    circle = stages.circle(lab)
    if circle:
        raise source.error(
            ("topology", "nodes", circle[0].node, "stages"),
            f"the stages wait for each other: {', for '.join(map(str, circle))}",
        )
    return lab


@functools.cache
def _validator() -> Draft7Validator:
    text = (resources.files("topology") / "schema" / "clab.schema.json").read_text()
    return Draft7Validator(json.loads(text.replace(r"[\\p{N}\\p{L}]", r"\\w")))


def known_kinds() -> list[str]:
    """Every kind that containerlab knows."""
    schema: Any = _validator().schema
    kinds: list[str] = schema["definitions"]["node-config"]["properties"]["kind"]["enum"]
    return kinds


def _check_schema(source: Source) -> None:
    if not isinstance(source.data, Mapping):
        raise source.error((), "not a containerlab topology: it needs `name` and `topology`")
    errors = sorted(_validator().iter_errors(source.data), key=lambda e: list(map(str, e.path)))
    if not errors:
        return
    error = _innermost(errors[0])
    where: list[Step] = list(error.absolute_path)
    place = ".".join(map(str, where)) or "the file"
    if error.validator == "enum" and where and where[-1] == "kind":
        raise source.error(where, clab_nodes.unknown_kind(where, error.instance))
    raise source.error(
        where, f"{place}: {error.message}; see https://containerlab.dev/manual/topo-def-file/"
    )


def _innermost(error: ValidationError) -> ValidationError:
    """The fault itself, from under the alternatives that a schema offers (`oneOf`).

    Each fails in its own way; the one that got deepest into the value is meant, and
    never the one of another type altogether.
    """
    while error.context:
        error = max(error.context, key=lambda e: (len(e.absolute_path), e.validator != "type"))
    return error
