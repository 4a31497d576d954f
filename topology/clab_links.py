"""The links of a containerlab file: two ends each, of nodes that exist, by names Linux takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_interface
from typing import Any

from topology.clab_nodes import IFNAMSIZ, too_long
from topology.model import LabNode, Link, LinkEnd
from topology.source import Source, Step

DEFAULT_MTU = 1500
"""Not containerlab's 9500, which hides every MTU mistake."""
SPECIAL = ("host", "mgmt-net", "macvlan", "vxlan", "vxlan-stitch", "dummy")
"""What a brief link may name instead of a node, for a link of that type."""


def links(
    source: Source, topology: Mapping[str, Any], nodes: Mapping[str, LabNode]
) -> Iterator[Link]:
    """Raises ConfigError: with file, line, what is wrong, and what to do."""
    taken: set[tuple[str, str]] = set()
    for index, link in enumerate(topology.get("links") or ()):
        where = ("topology", "links", index)
        kind = link.get("type", "veth")
        if kind != "veth":
            raise source.error(where, _other_type(kind))
        endpoints = link["endpoints"]
        if len(endpoints) != 2:
            raise source.error(where, f"a link has two endpoints, this one {len(endpoints)}")
        one, other = (_end(source, where, link, position, nodes, taken) for position in range(2))
        yield Link(one=one, other=other, mtu=int(link.get("mtu", DEFAULT_MTU)))


def _other_type(kind: str) -> str:
    return f"link type {kind!r} needs containers: use `veth`, or --runtime containerlab"


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
    if node in SPECIAL and node not in nodes:
        raise source.error(at, _other_type(node))
    if node not in nodes:
        raise source.error(
            at, f"link to unknown node {node!r}: the nodes are {', '.join(sorted(nodes))}"
        )
    if not ifname or "/" in ifname or any(c.isspace() for c in ifname) or ifname in (".", ".."):
        raise source.error(at, f"{ifname!r} is no interface name: write NODE:eth1")
    if len(ifname) > IFNAMSIZ:
        raise source.error(at, too_long(ifname, f"interface {ifname!r} of node {node!r}"))
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
