"""JSON as it lies in etcd: Cilium's shapes, and the one converter that reads and writes.

A class here *is* a value: field names, order and emptiness are those of Cilium's Go
structs (pkg/node/types, pkg/identity, pkg/clustermesh/types), so that unstructuring one
gives the very bytes that Cilium writes. Reading is strict about types, since Go would
refuse them too, and lenient about fields: unknown ones are ignored.
"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_unstructure_fn, override

from meshnet.errors import ConfigError, PoisonedKey
from meshnet.model.addressing import Address, Prefix, parse_address, parse_prefix

T = TypeVar("T")


@attrs.frozen
class IPAddress:
    Type: str
    """`InternalIP`, `CiliumInternalIP` (a gateway inside a PodCIDR) or `ExternalIP`."""
    IP: Address


@attrs.frozen
class CIDR:
    """Go's net.IPNet: the mask is base64 of its bytes."""

    IP: Address
    Mask: bytes


@attrs.frozen(kw_only=True)
class Node:
    """`cilium/state/nodes/v1/<cluster>/<node>`."""

    Name: str
    Cluster: str
    IPAddresses: tuple[IPAddress, ...] | None = None
    IPv4AllocCIDR: CIDR | None = None
    IPv4SecondaryAllocCIDRs: tuple[CIDR, ...] | None = None
    IPv6AllocCIDR: CIDR | None = None
    IPv6SecondaryAllocCIDRs: tuple[CIDR, ...] | None = None
    IPv4HealthIP: Address | None = None
    IPv6HealthIP: Address | None = None
    IPv4IngressIP: Address | None = None
    IPv6IngressIP: Address | None = None
    ClusterID: int = 0
    Source: str = "local"
    EncryptionKey: int = 0
    Labels: dict[str, str] | None = attrs.field(factory=dict)
    Annotations: dict[str, str] | None = attrs.field(factory=dict)
    WireguardPubKey: str = ""
    BootID: str = ""


@attrs.frozen
class NamedPort:
    Name: str
    Port: int
    Protocol: str


@attrs.frozen(kw_only=True)
class IPEntry:
    """`cilium/state/ip/v1/default/<ip>`. The last four are left out when empty."""

    IP: Address
    Mask: bytes | None = None
    """None for a single address."""
    HostIP: Address | None = None
    ID: int
    Key: int = 0
    Metadata: str = ""
    K8sNamespace: str = ""
    K8sPodName: str = ""
    K8sServiceAccount: str = ""
    NamedPorts: tuple[NamedPort, ...] | None = ()


@attrs.frozen
class L4Addr:
    Protocol: str
    Port: int


PortConfiguration = dict[str, L4Addr]
"""By the port's name."""


@attrs.frozen(kw_only=True)
class ClusterService:
    """`cilium/state/services/v1/<cluster>/<namespace>/<name>`."""

    cluster: str
    namespace: str
    name: str
    frontends: dict[str, PortConfiguration | None] | None = attrs.field(factory=dict)
    backends: dict[str, PortConfiguration | None] | None = attrs.field(factory=dict)
    hostnames: dict[str, str] | None = attrs.field(factory=dict)
    zones: dict[str, Any] | None = attrs.field(factory=dict)
    labels: dict[str, str] | None = attrs.field(factory=dict)
    selector: dict[str, str] | None = attrs.field(factory=dict)
    includeExternal: bool = False
    shared: bool = False
    clusterID: int = 0


@attrs.frozen
class ServiceAddress:
    """`meshnet/v1/alloc/service-addresses/<address>`: whose it is."""

    namespace: str
    name: str


@attrs.frozen
class Health:
    """`meshnet/v1/health/<node>`."""

    failing: dict[str, str] = attrs.field(factory=dict)
    """`10.1.0.9:8080/tcp` -> why."""


@attrs.frozen(kw_only=True)
class Capabilities:
    """All left out when false or zero, as Go's omitempty does."""

    syncedCanaries: bool = False
    cached: bool = False
    maxConnectedClusters: int = 0


@attrs.frozen(kw_only=True)
class ClusterConfig:
    """`cilium/cluster-config/<cluster>`."""

    id: int = 0
    capabilities: Capabilities = Capabilities()


@attrs.frozen
class Allocation:
    """`meshnet/v1/alloc/pod-cidrs/<prefix>`; no node: the block is free."""

    node: str
    epoch: int


def _spoken(value: Any) -> str:
    return json.dumps(value)[:40]


def _strict(expected: type, spoken: str) -> Callable[[Any, Any], Any]:
    """A hook for exactly this type, where cattrs would turn "7" and true into 7.

    cattrs also asks it for the enums derived from `expected`.
    """

    def structure(value: Any, wanted: Any) -> Any:
        if type(value) is not expected:
            raise ValueError(f"expected {spoken}, got {_spoken(value)}")
        return wanted(value)

    return structure


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {_spoken(value)}")
    return value


def _address(value: Any, _: Any = None) -> Address:
    return parse_address(_text(value))


def _optional_address(value: Any, _: Any = None) -> Address | None:
    """Go writes a missing net.IP as an empty text."""
    return None if value is None or value == "" else _address(value)


def _prefix(value: Any, _: Any = None) -> Prefix:
    return parse_prefix(_text(value))


def _time(value: Any, _: Any = None) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError(f"time {value!r} has no zone")
    return moment


def _make_converter() -> cattrs.Converter:
    made = cattrs.Converter()
    made.register_structure_hook(int, _strict(int, "a number"))
    made.register_structure_hook(bool, _strict(bool, "true or false"))
    made.register_structure_hook(str, _strict(str, "text"))
    made.register_structure_hook(bytes, lambda value, _: base64.b64decode(_text(value), None, True))
    made.register_structure_hook(Address, _address)
    made.register_structure_hook(Address | None, _optional_address)
    made.register_structure_hook(Prefix, _prefix)
    made.register_structure_hook(datetime.datetime, _time)
    made.register_structure_hook(IPv4Address, lambda value, _: IPv4Address(_text(value)))
    made.register_structure_hook(IPv6Address, lambda value, _: IPv6Address(_text(value)))
    made.register_unstructure_hook(IPv4Address, str)
    made.register_unstructure_hook(IPv6Address, str)
    made.register_unstructure_hook(IPv4Network, str)
    made.register_unstructure_hook(IPv6Network, str)
    made.register_unstructure_hook(Address | None, lambda value: str(value or ""))
    made.register_unstructure_hook(datetime.datetime, lambda moment: moment.isoformat())
    made.register_unstructure_hook(bytes, lambda value: base64.b64encode(value).decode())
    for shape in (Capabilities, ClusterConfig):
        made.register_unstructure_hook(
            shape, make_dict_unstructure_fn(shape, made, _cattrs_omit_if_default=True)
        )
    left_out = override(omit_if_default=True)
    made.register_unstructure_hook(
        IPEntry,
        make_dict_unstructure_fn(
            IPEntry,
            made,
            K8sNamespace=left_out,
            K8sPodName=left_out,
            K8sServiceAccount=left_out,
            NamedPorts=left_out,
        ),
    )
    return made


_converter = _make_converter()


def dump(value: object) -> bytes:
    """Compact JSON, fields in the order of the class."""
    return json.dumps(_converter.unstructure(value), separators=(",", ":")).encode()


def load(key: str, value: bytes, shape: type[T]) -> T:
    """Read one value. Raises PoisonedKey with every fault and the field it is in."""
    try:
        raw = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise PoisonedKey(key, f"not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise PoisonedKey(key, f"expected a JSON object, got {_spoken(raw)}")
    try:
        return _converter.structure(raw, shape)
    except cattrs.BaseValidationError as error:
        faults = cattrs.transform_error(error, path="value", format_exception=_fault)
        raise PoisonedKey(key, "; ".join(faults)) from error


def _fault(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return "required field missing"
    if isinstance(error, ValueError | ConfigError):
        return str(error)
    return "wrong type"
