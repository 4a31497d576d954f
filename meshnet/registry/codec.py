"""Values in etcd to types and back.

A `decode_x(key, value)` raises PoisonedKey, and nothing else, when a value cannot be
used: not JSON, a wrong type, another owner than its key says, an id of another cluster.
The reasons are worded as Cilium words them where it has the same rule. Bytes written for
other clusters are Cilium's to the letter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from meshnet.errors import ConfigError, ManifestRefused, PoisonedKey
from meshnet.manifests.kinds import read_manifest
from meshnet.model import identity as identities
from meshnet.model.addressing import (
    Address,
    PodCIDR,
    Prefix,
    host_prefix,
    parse_prefix,
)
from meshnet.model.cluster import Cluster, ClusterConfig
from meshnet.model.endpoint import Endpoint, IpEntry
from meshnet.model.identity import CLUSTER_LABEL, Identity, LabelSet
from meshnet.model.manifest import Manifest, ManifestKey, SharedManifest
from meshnet.model.node import Node
from meshnet.model.remote import MirrorStatus, Remote
from meshnet.model.token import TokenRecord
from meshnet.registry import schema, wire

INTERNAL = "InternalIP"
EXTERNAL = "ExternalIP"
GATEWAY = "CiliumInternalIP"
METADATA = "cilium-global:default"


# --- cilium/cluster-config ----------------------------------------------------------------


def encode_cluster_config(config: ClusterConfig) -> bytes:
    capabilities = wire.Capabilities(
        syncedCanaries=config.synced_canaries,
        cached=config.cached,
        maxConnectedClusters=config.max_connected_clusters,
    )
    return wire.dump(wire.ClusterConfig(id=config.id, capabilities=capabilities))


def decode_cluster_config(key: str, value: bytes) -> ClusterConfig:
    read = wire.load(key, value, wire.ClusterConfig)
    if not 1 <= read.id <= 255:
        raise PoisonedKey(key, f"cluster ID {read.id} is out of range: 1 to 255")
    return ClusterConfig(
        id=read.id,
        synced_canaries=read.capabilities.syncedCanaries,
        cached=read.capabilities.cached,
        max_connected_clusters=read.capabilities.maxConnectedClusters,
    )


# --- cilium/state/nodes -------------------------------------------------------------------


def encode_node(node: Node) -> bytes:
    first4, more4 = _cidrs(node.pod_cidrs, 4)
    first6, more6 = _cidrs(node.pod_cidrs, 6)
    return wire.dump(
        wire.Node(
            Name=node.name,
            Cluster=node.cluster,
            IPAddresses=(
                *(wire.IPAddress(INTERNAL, address) for address in node.addresses),
                *(wire.IPAddress(GATEWAY, address) for address in node.gateways),
            ),
            IPv4AllocCIDR=first4,
            IPv4SecondaryAllocCIDRs=more4,
            IPv6AllocCIDR=first6,
            IPv6SecondaryAllocCIDRs=more6,
            IPv4HealthIP=_of_version(node.health, 4),
            IPv6HealthIP=_of_version(node.health, 6),
            IPv4IngressIP=_of_version(node.ingress, 4),
            IPv6IngressIP=_of_version(node.ingress, 6),
            ClusterID=node.cluster_id,
            BootID=node.boot_id,
        )
    )


def decode_node(key: str, value: bytes, *, cluster_id: int | None = None) -> Node:
    """`cluster_id`: the one the node's cluster must have; None where any will do."""
    read = wire.load(key, value, wire.Node)
    cluster, name = schema.cluster_and_node_of(key)
    if read.Name != name:
        raise PoisonedKey(key, f"name does not match key: got {read.Name}, expected {name}")
    if read.Cluster != cluster:
        raise PoisonedKey(key, f"unexpected cluster name: got {read.Cluster}, expected {cluster}")
    if read.ClusterID == 0:
        raise PoisonedKey(key, "ClusterID 0 is reserved")
    if cluster_id is not None and read.ClusterID != cluster_id:
        got = f"got {read.ClusterID}, expected {cluster_id}"
        raise PoisonedKey(key, f"unexpected cluster ID: {got}")
    if not 1 <= read.ClusterID <= 255:
        raise PoisonedKey(key, f"cluster ID {read.ClusterID} is out of range: 1 to 255")
    blocks = (
        read.IPv4AllocCIDR,
        *(read.IPv4SecondaryAllocCIDRs or ()),
        read.IPv6AllocCIDR,
        *(read.IPv6SecondaryAllocCIDRs or ()),
    )
    return Node(
        name=read.Name,
        cluster=read.Cluster,
        cluster_id=read.ClusterID,
        addresses=(*_addresses(read, INTERNAL), *_addresses(read, EXTERNAL)),
        gateways=_addresses(read, GATEWAY),
        health=_present(read.IPv4HealthIP, read.IPv6HealthIP),
        ingress=_present(read.IPv4IngressIP, read.IPv6IngressIP),
        pod_cidrs=tuple(_prefix(key, b.IP, b.Mask) for b in blocks if b is not None),
        boot_id=read.BootID,
    )


def _addresses(node: wire.Node, kind: str) -> tuple[Address, ...]:
    return tuple(entry.IP for entry in node.IPAddresses or () if entry.Type == kind)


def _present(*addresses: Address | None) -> tuple[Address, ...]:
    return tuple(address for address in addresses if address is not None)


def _of_version(addresses: Iterable[Address], version: int) -> Address | None:
    return next((address for address in addresses if address.version == version), None)


def _cidrs(
    prefixes: Iterable[Prefix], version: int
) -> tuple[wire.CIDR | None, tuple[wire.CIDR, ...] | None]:
    """The first prefix of a family and the rest; None where there is none, as Cilium's."""
    cidrs = tuple(
        wire.CIDR(prefix.network_address, prefix.netmask.packed)
        for prefix in prefixes
        if prefix.version == version
    )
    return (cidrs[0] if cidrs else None), (cidrs[1:] or None)


def _prefix(key: str, address: Address, mask: bytes) -> Prefix:
    if len(mask) != len(address.packed):
        family = f"IPv{address.version}"
        raise PoisonedKey(key, f"mask of {address} has {len(mask)} bytes: wrong for {family}")
    bits = f"{int.from_bytes(mask, 'big'):0{len(mask) * 8}b}"
    if "01" in bits:
        raise PoisonedKey(key, f"mask of {address} is not contiguous")
    try:
        return parse_prefix(f"{address}/{bits.count('1')}")
    except ConfigError as error:
        raise PoisonedKey(key, str(error)) from error


# --- cilium/state/ip ------------------------------------------------------------------------


def encode_ip_entry(entry: IpEntry) -> bytes:
    prefix = entry.prefix
    whole = prefix.prefixlen == prefix.max_prefixlen
    metadata = f"{METADATA}:{entry.node}:{entry.endpoint_id}" if entry.node else ""
    return wire.dump(
        wire.IPEntry(
            IP=prefix.network_address,
            Mask=None if whole else prefix.netmask.packed,
            HostIP=entry.host,
            ID=entry.identity,
            Metadata=metadata,
            K8sNamespace=entry.namespace,
            K8sPodName=entry.name,
            NamedPorts=tuple(_named_port(*port) for port in entry.named_ports.items()),
        )
    )


def decode_ip_entry(key: str, value: bytes, *, cluster_id: int | None = None) -> IpEntry:
    """`cluster_id`: whose identities may stand there besides the reserved ones."""
    read = wire.load(key, value, wire.IPEntry)
    prefix = host_prefix(read.IP) if read.Mask is None else _prefix(key, read.IP, read.Mask)
    expected = schema.ip_of(key)
    if schema.ip_text(prefix) != expected:
        got = f"got {schema.ip_text(prefix)}, expected {expected}"
        raise PoisonedKey(key, f"IP address does not match key: {got}")
    _check_identity(key, read.ID, cluster_id, reserved=True)
    node, endpoint_id = _metadata(read.Metadata)
    return IpEntry(
        prefix=prefix,
        host=None if read.HostIP is None or read.HostIP.is_unspecified else read.HostIP,
        identity=read.ID,
        name=read.K8sPodName,
        namespace=read.K8sNamespace,
        node=node,
        endpoint_id=endpoint_id,
        named_ports={p.Name: f"{p.Port}/{p.Protocol.lower()}" for p in read.NamedPorts or ()},
    )


def _named_port(name: str, port: str) -> wire.NamedPort:
    number, _, protocol = port.partition("/")
    return wire.NamedPort(name, int(number), protocol.upper())


def _metadata(text: str) -> tuple[str, int]:
    """`cilium-global:default:<node>:<id>` to node and id; all else means no endpoint."""
    match text.removeprefix(f"{METADATA}:").split(":"):
        case [node, number] if text.startswith(METADATA) and number.isdecimal():
            return node, int(number)
        case _:
            return "", 0


def _check_identity(key: str, number: int, cluster_id: int | None, *, reserved: bool) -> None:
    if reserved and 0 <= number < identities.FIRST_LOCAL:
        return
    owner = identities.cluster_of(number) if cluster_id is None else cluster_id
    if not 1 <= owner <= 255 or not identities.belongs_to(number, owner):
        raise PoisonedKey(
            key, f"ID {number} does not belong to the allocation range of cluster ID {owner}"
        )


# --- cilium/state/identities ------------------------------------------------------------------


def encode_identity(identity: Identity) -> bytes:
    """Not JSON: the canonical text of the labels. The number is the key's."""
    return str(identity.labels).encode()


def decode_identity(
    key: str, value: bytes, *, cluster_id: int | None = None, cluster: str | None = None
) -> Identity:
    """`cluster_id` and `cluster`: whose range and whose label the identity must have."""
    number = decode_number(key, schema.last_of(key).encode())
    _check_identity(key, number, cluster_id, reserved=False)
    try:
        labels = LabelSet.parse(value.decode())
    except ValueError as error:
        raise PoisonedKey(key, str(error)) from error
    owner = labels.get(CLUSTER_LABEL)
    if owner is None:
        raise PoisonedKey(key, f"could not find expected label {CLUSTER_LABEL}")
    if cluster is not None and owner != cluster:
        got = f"got {owner}, expected {cluster}"
        raise PoisonedKey(key, f"unexpected value for label {CLUSTER_LABEL}: {got}")
    return Identity(number, labels)


def decode_number(key: str, value: bytes) -> int:
    """A value that is one decimal number, such as an identity's allocation."""
    if not (value.isdigit() and len(value) <= 10):
        raise PoisonedKey(key, f"expected a number, got {value[:40]!r}")
    return int(value)


# --- ours -----------------------------------------------------------------------------------


def encode_cluster(cluster: Cluster) -> bytes:
    return wire.dump(cluster)


def decode_cluster(key: str, value: bytes) -> Cluster:
    return wire.load(key, value, Cluster)


def encode_remote(remote: Remote) -> bytes:
    return wire.dump(remote)


def decode_remote(key: str, value: bytes) -> Remote:
    remote = wire.load(key, value, Remote)
    _expect_name(key, remote.name)
    if not 1 <= remote.id <= 255:
        raise PoisonedKey(key, f"cluster ID {remote.id} is out of range: 1 to 255")
    return remote


def encode_mirror_status(status: MirrorStatus) -> bytes:
    return wire.dump(status)


def decode_mirror_status(key: str, value: bytes) -> MirrorStatus:
    status = wire.load(key, value, MirrorStatus)
    _expect_name(key, status.name)
    return status


def encode_pod_cidr(block: PodCIDR) -> bytes:
    return wire.dump(wire.Allocation(node=block.node, epoch=block.epoch))


def decode_pod_cidr(key: str, value: bytes) -> PodCIDR:
    """A PodCIDR without a node is free; it is kept for its epoch."""
    read = wire.load(key, value, wire.Allocation)
    try:
        network = parse_prefix(key.removeprefix(schema.POD_CIDR_ALLOCATIONS))
        return PodCIDR(network=network, node=read.node, epoch=read.epoch)
    except ConfigError as error:
        raise PoisonedKey(key, str(error)) from error


def encode_endpoint(endpoint: Endpoint) -> bytes:
    return wire.dump(endpoint)


def decode_endpoint(key: str, value: bytes) -> Endpoint:
    endpoint = wire.load(key, value, Endpoint)
    if str(endpoint.id) != schema.last_of(key):
        got = f"got {endpoint.id}, expected {schema.last_of(key)}"
        raise PoisonedKey(key, f"id does not match key: {got}")
    return endpoint


def encode_manifest(manifest: Manifest) -> bytes:
    """The document as JSON, in its author's order of fields."""
    return json.dumps(manifest.document, ensure_ascii=False, separators=(",", ":")).encode()


def decode_manifest(key: str, value: bytes) -> Manifest:
    """Checked in every field, as when it was applied: another version may have written it."""
    try:
        manifest = read_manifest(json.loads(value))
    except (ValueError, RecursionError, ManifestRefused) as error:
        raise PoisonedKey(key, str(error)) from error
    if manifest_key(manifest.key) != key:
        raise PoisonedKey(key, f"{manifest.key} does not match key")
    return manifest


def decode_shared_manifest(key: str, value: bytes) -> SharedManifest:
    """Of another cluster: its own key of it, or that of its mirror."""
    parts = (
        key.removeprefix(schema.SHARED_MANIFESTS).removeprefix(schema.CACHE_MANIFESTS).split("/")
    )
    if len(parts) != 4:  # more would hide whose it is
        raise PoisonedKey(key, "is not <cluster>/<kind>/<namespace>/<name>")
    cluster, kind, namespace, name = parts
    manifest = decode_manifest(schema.manifest(kind, namespace, name), value)
    if not manifest.of_mesh:
        raise PoisonedKey(key, f"{manifest.key} is not for the whole mesh")
    return SharedManifest(origin=cluster, manifest=manifest)


def shared_manifest_key(cluster: str, key: ManifestKey) -> str:
    return schema.shared_manifest(cluster, key.kind.lower(), key.namespace, key.name)


def manifest_key(key: ManifestKey) -> str:
    return schema.manifest(key.kind.lower(), key.namespace, key.name)


def encode_token(record: TokenRecord) -> bytes:
    return wire.dump(record)


def decode_token(key: str, value: bytes) -> TokenRecord:
    return wire.load(key, value, TokenRecord)


def _expect_name(key: str, name: str) -> None:
    expected = schema.last_of(key)
    if name != expected:
        raise PoisonedKey(key, f"name does not match key: got {name}, expected {expected}")
