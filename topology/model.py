"""A lab as its containerlab file describes it, with inheritance resolved."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import attrs

HOST_KIND = "linux"
BRIDGE_KIND = "bridge"
MACHINE_KIND = "host"
"""The machine itself, as the far end of a cable."""
DEFAULT_PREFIX = "clab"


class Stage(enum.StrEnum):
    """What a node goes through on its way up, in containerlab's words."""

    CREATE = "create"
    LINKS = "create-links"
    CONFIGURE = "configure"
    HEALTHY = "healthy"
    EXIT = "exit"


class RuntimeKind(enum.StrEnum):
    NETNS = "netns"
    CONTAINERLAB = "containerlab"


class Form(enum.StrEnum):
    """Of a picture."""

    SVG = "svg"
    DOT = "dot"
    MERMAID = "mermaid"


@attrs.frozen(kw_only=True)
class Bind:
    """A file or directory of the machine that a node sees."""

    source: Path
    """Absolute."""
    target: Path
    read_only: bool = False


@attrs.frozen
class Wait:
    """Until another node has gone through a stage."""

    node: str
    stage: Stage


@attrs.frozen(kw_only=True)
class Limits:
    """What a host may use of the machine; None: all of it."""

    cpu: float | None = None
    """CPUs, such as 0.5."""
    cpu_set: str | None = None
    """Which ones, such as `0-1,3`."""
    memory: int | None = None
    """Bytes."""


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
    limits: Limits = Limits()
    startup_delay_s: int = 0
    """Before its first command."""
    waits: Mapping[Stage, tuple[Wait, ...]] = attrs.field(factory=dict)
    """What each of its stages waits for."""
    ignored: tuple[str, ...] = ()
    """Fields that are set, and have no meaning without containers."""

    @property
    def is_bridge(self) -> bool:
        return self.kind == BRIDGE_KIND

    @property
    def is_machine(self) -> bool:
        return self.kind == MACHINE_KIND


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

    def __str__(self) -> str:
        return " - ".join(f"{end.node}:{end.ifname}" for end in self.ends)


@attrs.frozen(kw_only=True)
class Lab:
    name: str
    file: Path
    """Absolute."""
    nodes: Mapping[str, LabNode]
    links: tuple[Link, ...]
    prefix: str = DEFAULT_PREFIX
    unsaid_mtu: bool = False
    """Some link has no `mtu`, so it got the default."""


def long_name(prefix: str, lab: str, node: str) -> str:
    """The name that containerlab gives a node's container."""
    if prefix == "__lab-name":
        prefix = ""
    elif not prefix:
        return node
    return "-".join(part for part in (prefix, lab, node) if part)
