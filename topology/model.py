"""A lab as its containerlab file describes it, with inheritance resolved."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import attrs

HOST_KIND = "linux"
BRIDGE_KIND = "bridge"


class RuntimeKind(enum.StrEnum):
    NETNS = "netns"
    CONTAINERLAB = "containerlab"


@attrs.frozen(kw_only=True)
class Bind:
    """A file or directory of the machine that a node sees."""

    source: Path
    """Absolute."""
    target: Path
    read_only: bool = False


@attrs.frozen(kw_only=True)
class LabNode:
    name: str
    kind: str
    hostname: str
    exec: tuple[str, ...] = ()
    """Commands to run inside once the links are there, in order, without a shell."""
    env: Mapping[str, str] = attrs.field(factory=dict)
    binds: tuple[Bind, ...] = ()
    labels: Mapping[str, str] = attrs.field(factory=dict)
    sysctls: Mapping[str, str] = attrs.field(factory=dict)
    ignored: tuple[str, ...] = ()
    """Fields that are set, and have no meaning without containers."""

    @property
    def is_bridge(self) -> bool:
        return self.kind == BRIDGE_KIND


@attrs.frozen(kw_only=True)
class LinkEnd:
    node: str
    ifname: str
    mac: str | None = None
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()


@attrs.frozen(kw_only=True)
class Link:
    one: LinkEnd
    other: LinkEnd
    mtu: int

    @property
    def ends(self) -> tuple[LinkEnd, LinkEnd]:
        return (self.one, self.other)


@attrs.frozen(kw_only=True)
class Lab:
    name: str
    file: Path
    """Absolute."""
    nodes: Mapping[str, LabNode]
    links: tuple[Link, ...]
