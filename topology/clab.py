"""Reads containerlab's topology files (`*.clab.yml`).

First containerlab's own JSON Schema, then what that cannot say: nodes that exist, two ends
a link, interface names the kernel takes. Source: https://containerlab.dev/manual/topo-def-file/
and topology/schema/PROVENANCE.md.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, ValidationError

from topology.model import BRIDGE_KIND, HOST_KIND, Bind, Lab, LabNode, Link, LinkEnd
from topology.source import Source, Step

DEFAULT_MTU = 9500
"""containerlab's. It hides every MTU mistake: give links an `mtu`."""
IFNAMSIZ = 15
"""Characters of an interface name (IFNAMSIZ of <linux/if.h>, less its NUL)."""
HOSTNAME_MAX = 63

_NODE_NAME = re.compile(r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
_USED = {"kind", "exec", "env", "binds", "labels", "group", "hostname", "sysctls"}
_HARMLESS = {"config", "mgmt-ipv4", "mgmt-ipv6", "image-pull-policy"}
"""Say nothing about: our own data, the management network that is not there."""


def read(path: Path) -> Lab:
    """Read and check one file.

    Raises:
        ConfigError: with file, line, what is wrong, and what to do.
    """
    source = Source.read(path.absolute())
    _check_schema(source)
    topology = source.data["topology"]
    nodes = {name: _node(source, topology, name) for name in topology.get("nodes") or {}}
    if not nodes:
        raise source.error(
            ("topology", "nodes"), "a lab without nodes: add them under topology.nodes"
        )
    links = tuple(_links(source, topology, nodes))
    return Lab(name=source.data["name"], file=source.path, nodes=nodes, links=links)


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
        raise source.error(where, _unknown_kind(where, error.instance))
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


def _unknown_kind(where: Sequence[Step], kind: object) -> str:
    owner = f"node {where[-2]!r}" if len(where) > 1 else "node"
    return f"{owner}: unknown kind {kind!r}: `{HOST_KIND}` is a host, `{BRIDGE_KIND}` a switch"


def _node(source: Source, topology: Mapping[str, Any], name: str) -> LabNode:
    where = ("topology", "nodes", name)
    if len(name) > HOSTNAME_MAX or not _NODE_NAME.match(name):
        raise source.error(
            where,
            f"node name {name!r} is no host name: letters, digits and '-', "
            f"{HOSTNAME_MAX} characters at most",
        )
    layers = _layers(topology, topology["nodes"][name] or {})
    kind = next((layer["kind"] for layer in reversed(layers) if "kind" in layer), None)
    if kind is None:
        raise source.error(where, f"node {name!r} has no kind: add `kind: {HOST_KIND}`")
    if kind not in known_kinds():
        raise source.error(where, _unknown_kind((*where, "kind"), kind))
    if kind == BRIDGE_KIND and len(name) > IFNAMSIZ:
        raise source.error(where, _too_long(name, f"the bridge {name!r}"))
    return LabNode(
        name=name,
        kind=kind,
        hostname=str(_latest(layers, "hostname") or name),
        exec=tuple(line for layer in layers for line in layer.get("exec", ())),
        env=_merged(layers, "env"),
        binds=tuple(_binds(source, where, layers)),
        labels=_merged(layers, "labels"),
        sysctls=_merged(layers, "sysctls"),
        ignored=tuple(sorted({k for layer in layers for k in layer} - _USED - _HARMLESS)),
    )


def _layers(topology: Mapping[str, Any], node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the node inherits, least specific first: defaults, kind, group, its own."""
    defaults = topology.get("defaults") or {}
    groups = topology.get("groups") or {}
    group = groups.get(node.get("group", defaults.get("group"))) or {}
    kind = node.get("kind") or group.get("kind") or defaults.get("kind")
    return [defaults, (topology.get("kinds") or {}).get(kind) or {}, group, node]


def _latest(layers: Sequence[Mapping[str, Any]], key: str) -> object:
    return next((layer[key] for layer in reversed(layers) if key in layer), None)


def _merged(layers: Sequence[Mapping[str, Any]], key: str) -> dict[str, str]:
    return {
        name: _text(value) for layer in layers for name, value in (layer.get(key) or {}).items()
    }


def _text(value: object) -> str:
    """As YAML wrote it: `true`, not Python's `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _binds(
    source: Source, where: Sequence[Step], layers: Sequence[Mapping[str, Any]]
) -> Iterator[Bind]:
    """`SOURCE:TARGET[:OPTIONS]`, relative to the file. The most specific of a target counts."""
    found: dict[Path, Bind] = {}
    for text in (bind for layer in layers for bind in layer.get("binds", ())):
        parts = text.split(":")
        if len(parts) not in (2, 3) or not parts[0] or not parts[1].startswith("/"):
            raise source.error(
                (*where, "binds"), f"bind {text!r} is not SOURCE:/TARGET or SOURCE:/TARGET:ro"
            )
        outside = (source.path.parent / Path(parts[0]).expanduser()).resolve()
        if not outside.exists():
            raise source.error(
                (*where, "binds"), f"bind {text!r}: {outside} does not exist on this machine"
            )
        options = parts[2].split(",") if len(parts) == 3 else []
        target = Path(parts[1])
        found[target] = Bind(source=outside, target=target, read_only="ro" in options)
    yield from found.values()


def _links(
    source: Source, topology: Mapping[str, Any], nodes: Mapping[str, LabNode]
) -> Iterator[Link]:
    taken: set[tuple[str, str]] = set()
    for index, link in enumerate(topology.get("links") or ()):
        where = ("topology", "links", index)
        kind = link.get("type", "veth")
        if kind != "veth":
            raise source.error(
                where,
                f"link type {kind!r} needs containers: use `veth`, or --runtime containerlab",
            )
        endpoints = link["endpoints"]
        if len(endpoints) != 2:
            raise source.error(where, f"a link has two endpoints, this one {len(endpoints)}")
        one, other = (_end(source, where, link, position, nodes, taken) for position in range(2))
        yield Link(one=one, other=other, mtu=int(link.get("mtu", DEFAULT_MTU)))


def _end(
    source: Source,
    where: Sequence[Step],
    link: Mapping[str, Any],
    position: int,
    nodes: Mapping[str, LabNode],
    taken: set[tuple[str, str]],
) -> LinkEnd:
    """One end of a link; `taken` collects what interfaces there are."""
    end = link["endpoints"][position]
    if isinstance(end, str):
        node, _, ifname = end.partition(":")
        own: Mapping[str, Any] = {}
    else:
        node, ifname, own = end["node"], end["interface"], end
    at = (*where, "endpoints", position)
    if node not in nodes:
        raise source.error(
            at, f"link to unknown node {node!r}: the nodes are {', '.join(sorted(nodes))}"
        )
    if not ifname or "/" in ifname or any(c.isspace() for c in ifname) or ifname in (".", ".."):
        raise source.error(at, f"{ifname!r} is no interface name: write NODE:eth1")
    if len(ifname) > IFNAMSIZ:
        raise source.error(at, _too_long(ifname, f"interface {ifname!r} of node {node!r}"))
    if (node, ifname) in taken:
        raise source.error(at, f"interface {ifname!r} of node {node!r} is in two links")
    taken.add((node, ifname))
    texts = [
        text
        for family in ("ipv4", "ipv6")
        for text in (own.get(family), *link.get(family, ())[position : position + 1])
        if text
    ]
    try:
        addresses = tuple(ip_interface(text) for text in texts)
    except ValueError as error:
        raise source.error(at, f"node {node!r}: {error}; write 192.0.2.1/24") from error
    return LinkEnd(node=node, ifname=ifname, mac=own.get("mac"), addresses=addresses)


def _too_long(name: str, what: str) -> str:
    return f"{what} is longer than {IFNAMSIZ} characters ({len(name)}), which Linux does not take"
