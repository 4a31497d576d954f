"""What joiner and signer say to each other: JSON over gRPC, and nothing generated.

Secrets (token, CA keys) are kept out of every repr. Unknown fields are ignored, so that
a newer side may say more.
"""

from __future__ import annotations

import base64
import datetime
import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar

import attrs
import cattrs

from meshnet.errors import ConfigError, Refused
from meshnet.model.ability import Abilities
from meshnet.model.addressing import Address, Prefix, parse_address, parse_prefix
from meshnet.model.check import Check
from meshnet.model.cluster import Cluster
from meshnet.pki.certificate import Authority, Profile

T = TypeVar("T")

SERVICE = "meshnet.v1.Enrolment"


@attrs.frozen(kw_only=True)
class JoinNodeRequest:
    """One more node wants to be in the cluster."""

    secret: bytes = attrs.field(repr=False)
    node: str
    addresses: tuple[Address, ...]
    """Its underlay addresses, the preferred one first."""
    requests: dict[Profile, str]
    """A signing request (PEM) for each certificate. The key for `node` is the claimant."""
    plan: bool = False
    """Only check: sign nothing, use nothing up."""
    abilities: Abilities = attrs.field(factory=Abilities)
    networks: tuple[Prefix, ...] = ()
    """What the host is on: its interfaces' own prefixes."""
    routes: tuple[Prefix, ...] = ()
    """What it reaches through routers, the default route aside."""


@attrs.frozen(kw_only=True)
class TunnelEnd:
    """Where the tunnel of the signer that answers ends."""

    addresses: tuple[Address, ...]
    sends: str
    ports: dict[str, int]
    """By protocol: it takes each."""


@attrs.frozen(kw_only=True)
class JoinNodeReply:
    cluster: Cluster
    certificates: dict[Profile, str]
    authorities: dict[Authority, str]
    """The CAs' certificates."""
    authority_keys: dict[Authority, str] = attrs.field(factory=dict, repr=False)
    """The CAs' keys, for a node that joins as a signer. Else empty."""
    etcd_endpoints: tuple[str, ...]
    signers: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    """What the signer looked at. Only for a plan: else the first fault is an error."""
    abilities: Abilities = attrs.field(factory=Abilities)
    tunnel: TunnelEnd | None = None
    """Of the answering signer. Only for a plan."""


@attrs.frozen(kw_only=True)
class RenewRequest:
    certificate: str
    request: str
    """Signed by the certificate's own key."""


@attrs.frozen(kw_only=True)
class RenewReply:
    certificate: str
    signers: tuple[str, ...]


@attrs.frozen(kw_only=True)
class MeshMember:
    """What one cluster tells another about itself when they join."""

    name: str
    id: int
    mesh_ca: str
    pod_cidrs: tuple[Prefix, ...]
    gateways: tuple[str, ...]
    """`host:port` of each."""
    abilities: Abilities = attrs.field(factory=Abilities)


@attrs.frozen(kw_only=True)
class JoinMeshRequest:
    secret: bytes = attrs.field(repr=False)
    member: MeshMember


@attrs.frozen(kw_only=True)
class JoinMeshReply:
    member: MeshMember
    checks: tuple[Check, ...] = ()
    """What the inviter looked at. Only for a plan: else the first fault is an error."""
    tunnel: TunnelEnd | None = None
    """Of the answering signer. Only for a plan."""


@attrs.frozen(kw_only=True)
class ProbeRequest:
    """Look whether the tunnel passes between us, both ways (see tunnel.py)."""

    secret: bytes = attrs.field(repr=False)
    nonce: bytes
    address: Address
    """Where the joiner's tunnel ends."""
    sends: str
    """In which format its questions come."""
    port: int
    """Where it listens for the signer's."""
    sizes: tuple[int, ...]
    """Of outer IP packets."""


@attrs.frozen(kw_only=True)
class ProbeReply:
    arrived: tuple[int, ...]
    source: str | None
    """The outer source address as the signer saw it."""


@attrs.frozen(kw_only=True)
class ChallengeReply:
    challenge: str


@attrs.frozen(kw_only=True)
class KeysRequest:
    """Another signer wants the CA keys that it lacks."""

    certificate: str
    """Of its enrolment port."""
    request: str
    """Signed by that certificate's key; its common name is the challenge."""


@attrs.frozen(kw_only=True)
class KeysReply:
    keys: dict[Authority, tuple[str, ...]] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class AuthoritiesRequest:
    """A cluster of the mesh asks by which CAs it knows us."""

    cluster: str
    """Who asks. It is not proven: all that is answered is public."""


@attrs.frozen(kw_only=True)
class AuthoritiesReply:
    name: str
    mesh_cas: tuple[str, ...]
    """PEM, the one that signs first."""
    signers: tuple[str, ...]
    revoked: tuple[str, ...] = ()
    """Serial numbers (hex) of certificates that were called back."""
    expelled: tuple[str, ...] = ()
    """Names of nodes that were thrown out."""


@attrs.frozen(kw_only=True)
class Nothing:
    """The answer that says: done."""


def _make_converter() -> cattrs.Converter:
    made = cattrs.Converter()
    made.register_structure_hook(Address, lambda value, _: parse_address(str(value)))
    made.register_structure_hook(Prefix, lambda value, _: parse_prefix(str(value)))
    made.register_structure_hook(bytes, lambda value, _: base64.b64decode(value, validate=True))
    made.register_structure_hook(
        datetime.datetime, lambda value, _: datetime.datetime.fromisoformat(value)
    )
    made.register_unstructure_hook(datetime.datetime, lambda value: value.isoformat())
    for address in (IPv4Address, IPv6Address, IPv4Network, IPv6Network):
        made.register_unstructure_hook(address, str)
    made.register_unstructure_hook(bytes, lambda value: base64.b64encode(value).decode())
    return made


_converter = _make_converter()


def encode(message: object) -> bytes:
    return json.dumps(_converter.unstructure(message)).encode()


def decode(data: bytes, shape: type[T]) -> T:
    """Read one message. Raises Refused with every fault and the field it is in."""
    try:
        raw: Any = json.loads(data)
        return _converter.structure(raw, shape)
    except cattrs.BaseValidationError as error:
        faults = cattrs.transform_error(error, path=shape.__name__, format_exception=_fault)
        raise Refused(f"message is faulty: {'; '.join(faults)}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(f"message is faulty: {shape.__name__}: {error}") from error


def _fault(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return "required field missing"
    return str(error) if isinstance(error, ValueError | ConfigError) else "wrong type"
