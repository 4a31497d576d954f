"""Services: one name and one address for many backends.

The words are Kubernetes' (Service v1, EndpointSlice discovery.k8s.io/v1): a Service has
ports, each port of each of its addresses is a frontend, and traffic to a frontend goes to
one of its backends. What makes it global is Cilium Cluster Mesh's.
"""

from __future__ import annotations

import enum

import attrs

from meshnet.errors import ConfigError
from meshnet.model.addressing import Address, parse_address


class Protocol(enum.IntEnum):
    """What a frontend speaks: IPPROTO numbers."""

    TCP = 6
    UDP = 17


@attrs.frozen(order=True)
class Frontend:
    """Where a client asks. Also the address of a backend: where the answer comes from."""

    address: Address = attrs.field(order=lambda address: (address.version, int(address)))
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}/{self.protocol.name.lower()}"


def parse_frontend(text: str) -> Frontend:
    """`10.1.0.9:8080/tcp`, `[fd00::9]:53/udp`. Raises ConfigError."""
    where, _, protocol = text.rpartition("/")
    host, _, port = where.rpartition(":")
    if protocol.upper() not in Protocol.__members__ or not port.isdecimal():
        raise ConfigError(f"{text!r} is not ADDRESS:PORT/PROTOCOL")
    return Frontend(parse_address(host.strip("[]")), int(port), Protocol[protocol.upper()])


BackendAddress = Frontend
"""The same three, on the other side of the translation."""


class ServiceType(enum.StrEnum):
    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class Affinity(enum.StrEnum):
    """Which clusters a global service prefers (`service.cilium.io/affinity`)."""

    NONE = "none"
    LOCAL = "local"
    REMOTE = "remote"


@attrs.frozen(kw_only=True)
class Check:
    """How the node that owns a backend finds out that it works."""

    path: str | None = None
    """GET this by HTTP and want a status below 400; None: a TCP connection is enough."""


@attrs.frozen(kw_only=True)
class Sharing:
    """A service of one name in several clusters."""

    is_global: bool = False
    """Backends of other clusters count as ours."""
    shared: bool = True
    """Other clusters are told our backends. Only of a global service."""
    affinity: Affinity = Affinity.NONE
    preference: tuple[str, ...] = ()
    """Clusters in the order in which they are used; the unnamed ones come last, together."""
    weights: dict[str, int] = attrs.field(factory=dict)
    """Share of a cluster among those used together; 1 where none is given, 0 for none."""
    min_healthy_percent: int = 1
    """Below this share of healthy backends a preferred cluster spills over to the next."""
    max_shift_percent: int = 100
    """How much of the traffic may move from cluster to cluster in a second."""


@attrs.frozen(kw_only=True)
class ServicePort:
    name: str
    port: int
    protocol: Protocol
    target: int | str
    """The backends' port: a number, or a name that each resolves by its own named ports."""


@attrs.frozen(kw_only=True)
class Service:
    namespace: str
    name: str
    labels: dict[str, str] = attrs.field(factory=dict)
    """Of the service itself: policies may select it by them."""
    type: ServiceType = ServiceType.CLUSTER_IP
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = attrs.field(factory=dict)
    """Labels of the endpoints that are its backends; empty: EndpointSlices name them."""
    headless: bool = False
    families: tuple[int, ...] = (4,)
    """IP versions of its cluster addresses, the first one first."""
    cluster_ips: tuple[Address, ...] = ()
    """Those that the manifest asks for; the others are allocated."""
    external_ips: tuple[Address, ...] = ()
    external_name: str = ""
    affinity_s: int = 0
    """How long a client keeps its backend; 0: no session affinity."""
    internal_local: bool = False
    """Clients on a node get backends of that node alone (internalTrafficPolicy Local)."""
    prefer_close: bool = False
    """Backends of the client's node, or else of its cluster, come first."""
    publish_not_ready: bool = False
    sharing: Sharing = Sharing()
    check: Check | None = None

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)


@attrs.frozen(kw_only=True)
class SliceEndpoint:
    """One endpoint of an EndpointSlice: a host, with what is said of its state."""

    addresses: tuple[Address, ...]
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    hostname: str = ""
    node: str = ""


@attrs.frozen(kw_only=True)
class SlicePort:
    name: str
    port: int
    protocol: Protocol


@attrs.frozen(kw_only=True)
class EndpointSlice:
    namespace: str
    name: str
    service: str
    """Label `kubernetes.io/service-name`."""
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()

    @property
    def service_key(self) -> tuple[str, str]:
        return (self.namespace, self.service)


class BackendState(enum.StrEnum):
    ACTIVE = "active"
    TERMINATING = "terminating"
    UNHEALTHY = "unhealthy"


@attrs.frozen(kw_only=True)
class Backend:
    """Who answers for one port of a service, and how it is doing."""

    at: BackendAddress
    port_name: str
    cluster: str
    node: str = ""
    name: str = ""
    """Of the endpoint; empty for a host that a slice names."""
    state: BackendState = BackendState.ACTIVE
    reason: str = ""
    """Why it is not active."""
    weight: int = 1


@attrs.frozen(kw_only=True)
class RemoteService:
    """What a cluster tells the others of a service: cilium/state/services/v1/..."""

    cluster: str
    cluster_id: int
    namespace: str
    name: str
    shared: bool = True
    frontends: dict[Address, dict[str, tuple[Protocol, int]]] = attrs.field(factory=dict)
    backends: dict[Address, dict[str, tuple[Protocol, int]]] = attrs.field(factory=dict)
    """By address, then by the port's name: the backend's protocol and port."""

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)


@attrs.frozen
class SocketPeer:
    """A socket of this node that asked for a frontend and was given a backend."""

    cookie: int
    """The kernel's number of the socket, never used again."""
    frontend: Frontend
    backend: BackendAddress
