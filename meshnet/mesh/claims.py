"""The kinds of keys that a cluster exports, where they lie, and how they are read.

A cluster keeps its own under `cilium/state/`, and a mirror of another cluster's under
`cilium/cache/`: the same values under other keys. Manifests for the whole mesh, which Cilium
does not have, are the same under `meshnet/v1/`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from meshnet.errors import ConfigError, PoisonedKey
from meshnet.logic.admission import (
    MAX_KEYS,
    MAX_MANIFEST_BYTES,
    MAX_MANIFESTS,
    MAX_VALUE_BYTES,
    Claim,
    ServiceClaim,
    Unreadable,
    oversized,
    spoken,
)
from meshnet.model.addressing import parse_address
from meshnet.model.remote import Remote, RemoteKind
from meshnet.registry import codec, schema, wire


@attrs.frozen(kw_only=True, eq=False)
class Kind:
    """One kind of keys of one cluster."""

    exported: str
    """Prefix in the etcd of the cluster itself."""
    cached: str
    """Prefix of the mirror in another cluster's etcd."""
    canary: str | None
    """Key in the cluster's etcd that says: written in full. None: nobody waits for that."""
    cache_canary: str | None
    """The same, of the mirror."""
    decode: Callable[[str, bytes], Claim]
    max_keys: int = MAX_KEYS
    max_bytes: int = MAX_VALUE_BYTES
    """Of one value."""

    def read(self, key: str, value: bytes) -> Claim:
        """What a key of `exported` claims; never raises."""
        if refused := oversized(key, value, self.max_bytes):
            return refused
        try:
            return self.decode(key, value)
        except PoisonedKey as error:
            return Unreadable(spoken(error.reason))

    def cache_key(self, key: str) -> str:
        """Where a key of `exported` is mirrored."""
        return self.cached + key.removeprefix(self.exported)

    def exported_key(self, cache_key: str) -> str:
        """What a key of `cached` mirrors."""
        return self.exported + cache_key.removeprefix(self.cached)


def kinds_of(remote: Remote) -> tuple[Kind, ...]:
    """What is read of a remote."""
    ours = (manifests_of(remote.name),) if remote.kind is RemoteKind.MESHNET else ()
    return (*kinds(remote.name), *ours)


def manifests_of(cluster: str) -> Kind:
    return Kind(
        exported=schema.shared_manifests(cluster),
        cached=schema.cache_manifests(cluster),
        canary=None,
        cache_canary=None,
        decode=codec.decode_shared_manifest,
        max_keys=MAX_MANIFESTS,
        max_bytes=MAX_MANIFEST_BYTES,
    )


def kinds(cluster: str) -> tuple[Kind, ...]:
    """Cilium's four. Nodes first: an address is believed only when its node is."""
    prefixes: tuple[tuple[str, str, Callable[[str, bytes], Claim]], ...] = (
        (schema.nodes(cluster), schema.cache_nodes(cluster), codec.decode_node),
        (schema.IPS, schema.cache_ips(cluster), codec.decode_ip_entry),
        (schema.IDENTITIES, schema.cache_identities(cluster), codec.decode_identity),
        (schema.services(cluster), schema.cache_services(cluster), decode_service),
    )
    canaries = zip(schema.CANARIED, schema.CACHE_CANARIED, strict=True)
    return tuple(
        Kind(
            exported=exported,
            cached=cached,
            canary=schema.synced(cluster, canary),
            cache_canary=schema.synced(cluster, cache_canary),
            decode=decode,
        )
        for (exported, cached, decode), (canary, cache_canary) in zip(
            prefixes, canaries, strict=True
        )
    )


@attrs.frozen(kw_only=True)
class _Service:
    """What of `cilium/state/services/v1/<cluster>/<namespace>/<name>` is checked."""

    cluster: str
    namespace: str
    name: str
    clusterID: int = 0
    backends: dict[str, Any] | None = None


def decode_service(key: str, value: bytes) -> ServiceClaim:
    """Raises PoisonedKey in the words of Cilium."""
    read = wire.load(key, value, _Service)
    if key.rsplit("/", 2)[1:] != [read.namespace, read.name]:
        raise PoisonedKey(key, f"namespaced name does not match key: {read.namespace}/{read.name}")
    if read.clusterID == 0:
        raise PoisonedKey(key, "ClusterID 0 is reserved")
    try:
        backends = tuple(parse_address(address) for address in read.backends or ())
    except ConfigError as error:
        raise PoisonedKey(key, str(error)) from error
    return ServiceClaim(cluster=read.cluster, cluster_id=read.clusterID, backends=backends)
