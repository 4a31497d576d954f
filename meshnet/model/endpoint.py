"""An endpoint: one workload's interface, addresses and labels."""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv6Address

import attrs

from meshnet.model import names
from meshnet.model.addressing import Address, Prefix


class EndpointState(enum.StrEnum):
    """`ready` means: others know it and packets flow."""

    CREATING = "creating"
    READY = "ready"
    STALE = "stale"
    """Its node went without saying goodbye; the rows are held for a while."""


@attrs.frozen(kw_only=True)
class OwnerProcess:
    """The process an endpoint lives and dies with. A pid alone may be reused."""

    pid: int
    start_time: int
    """Field 22 of /proc/<pid>/stat, clock ticks since boot."""


def _endpoint_name(text: str) -> str:
    return names.rfc1123_label("endpoint", text)


def _namespace_name(text: str) -> str:
    return names.rfc1123_label("namespace", text)


@attrs.frozen(kw_only=True)
class Endpoint:
    """One local endpoint, as its node's agent keeps it."""

    id: int
    """Node-local, 1..65535."""
    name: str = attrs.field(converter=_endpoint_name)
    namespace: str = attrs.field(default="default", converter=_namespace_name)
    labels: dict[str, str] = attrs.field(factory=dict)
    """The user's labels, without source."""
    ports: dict[str, str] = attrs.field(factory=dict)
    """Named ports: name -> `8080/tcp`."""
    ipv4: IPv4Address
    ipv6: IPv6Address | None = None
    identity: int = 0
    """0 until one is allocated."""
    namespace_labels: dict[str, str] = attrs.field(factory=dict)
    """What its namespace's labels were when it got its identity."""
    netns: str
    """Path of its network namespace."""
    ifname: str = "eth0"
    owns_netns: bool = False
    """We made the namespace, so we take it away."""
    owner: OwnerProcess | None = None
    log: str | None = None
    """File with stdout and stderr of a detached command."""
    audit: bool = False
    """What policy denies it passes, and is reported."""
    state: EndpointState = EndpointState.CREATING

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)

    @property
    def host_ifname(self) -> str:
        """Name of the veth's host side: at most 15 characters, unique on the node."""
        return f"mesh{self.id}"

    @property
    def addresses(self) -> tuple[Address, ...]:
        return (self.ipv4,) if self.ipv6 is None else (self.ipv4, self.ipv6)


@attrs.frozen(kw_only=True)
class IpEntry:
    """Who has an address: one `cilium/state/ip/v1/default/<ip>` key."""

    prefix: Prefix
    """/32 or /128 for an endpoint; Cilium may announce a shorter one."""
    host: Address | None
    """Underlay address of the node that has it; None: not tunnelled."""
    identity: int
    name: str = ""
    namespace: str = ""
    node: str = ""
    """From Metadata `cilium-global:default:<node>:<id>`; empty when another wrote it."""
    endpoint_id: int = 0
    named_ports: dict[str, str] = attrs.field(factory=dict)
