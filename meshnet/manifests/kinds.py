"""The kinds of manifests there are. A further kind is one more row of KINDS and its reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs

from meshnet.errors import ForeignKind, ManifestRefused, UsageError
from meshnet.logic.admission import MAX_MANIFEST_BYTES
from meshnet.manifests.cilium_policy import read_cilium_policy
from meshnet.manifests.endpoint_slice import read_endpoint_slice
from meshnet.manifests.metadata import SERVER_FIELDS, Metadata, read_metadata
from meshnet.manifests.network_policy import read_network_policy
from meshnet.manifests.reader import Fault, Fields, Reader
from meshnet.manifests.service import read_service
from meshnet.manifests.simple import read_cidr_group, read_namespace
from meshnet.model.manifest import (
    ORIGIN_ANNOTATION,
    SCOPE_ANNOTATION,
    SCOPES,
    Manifest,
    ManifestKey,
)


@attrs.frozen(kw_only=True)
class Kind:
    name: str
    """As in a document's `kind`."""
    versions: tuple[str, ...]
    """Of `apiVersion`; the first is the one that is written about."""
    aliases: tuple[str, ...]
    """What else the command line takes, as kubectl does."""
    namespaced: bool
    read: Callable[[Fields, Metadata], Any]
    """Reads what is beside `metadata` into the model; faults go to the Fields' list."""
    of_mesh: bool = False
    """May be applied for the whole mesh."""

    @property
    def slug(self) -> str:
        """The kind in a key of etcd and on the command line."""
        return self.name.lower()


KINDS = (
    Kind(
        name="NetworkPolicy",
        versions=("networking.k8s.io/v1",),
        aliases=("networkpolicies", "netpol"),
        namespaced=True,
        read=read_network_policy,
        of_mesh=True,
    ),
    Kind(
        name="CiliumNetworkPolicy",
        versions=("cilium.io/v2",),
        aliases=("ciliumnetworkpolicies", "cnp", "ciliumnp"),
        namespaced=True,
        read=read_cilium_policy,
        of_mesh=True,
    ),
    Kind(
        name="CiliumClusterwideNetworkPolicy",
        versions=("cilium.io/v2",),
        aliases=("ciliumclusterwidenetworkpolicies", "ccnp"),
        namespaced=False,
        read=read_cilium_policy,
        of_mesh=True,
    ),
    Kind(
        name="CiliumCIDRGroup",
        versions=("cilium.io/v2", "cilium.io/v2alpha1"),
        aliases=("ciliumcidrgroups", "ccg"),
        namespaced=False,
        read=read_cidr_group,
        of_mesh=True,
    ),
    Kind(
        name="Namespace",
        versions=("v1",),
        aliases=("namespaces", "ns"),
        namespaced=False,
        read=read_namespace,
    ),
    Kind(
        name="Service",
        versions=("v1",),
        aliases=("services", "svc"),
        namespaced=True,
        read=read_service,
    ),
    Kind(
        name="EndpointSlice",
        versions=("discovery.k8s.io/v1",),
        aliases=("endpointslices", "eps"),
        namespaced=True,
        read=read_endpoint_slice,
    ),
)
_RUN = "start its command with `meshnet run --label KEY=VALUE -- COMMAND`"
FOREIGN = {
    **dict.fromkeys(
        ("Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"), _RUN
    ),
    **dict.fromkeys(("ConfigMap", "Secret"), "give it to the command as a file or its environment"),
    "ServiceAccount": "every endpoint has the service account `default`",
    "Ingress": "there is no L7 entry from outside the mesh",
    "Endpoints": "say it as a discovery.k8s.io/v1 EndpointSlice",
}
"""Kinds of Kubernetes that an application's files have beside what is ours -> what to do."""

_BY_NAME = {kind.name: kind for kind in KINDS}
_BY_ALIAS = {alias: kind for kind in KINDS for alias in (kind.slug, *kind.aliases)}


def find_kind(text: str) -> Kind:
    """By kind, slug or alias, in any case. Raises UsageError with the kinds there are."""
    kind = _BY_ALIAS.get(text.lower())
    if kind is None:
        known = ", ".join(f"{kind.slug} ({kind.aliases[-1]})" for kind in KINDS)
        raise UsageError(f"kind {text!r} is unknown: {known}")
    return kind


def kind_of(manifest: Manifest) -> Kind:
    return _BY_NAME[manifest.key.kind]


def read_manifest(document: Any) -> Manifest:
    """A document as a manifest, checked in every field. Raises ManifestRefused."""
    manifest, _ = _read(document)
    return manifest


def meaning(manifest: Manifest) -> Any:
    """What the kind's reader makes of it: a tuple of Policy, a CidrGroup, labels."""
    return _read(manifest.document)[1]


def _read(document: Any) -> tuple[Manifest, Any]:
    faults: list[Fault] = []
    reader = Reader(document, "", faults)
    fields = reader.fields()
    version, named = fields.require("apiVersion"), fields.require("kind")
    kind = None
    if named is not None:
        kind = _BY_NAME.get(named.value) if isinstance(named.value, str) else None
        if kind is None and named.value in FOREIGN:
            raise ForeignKind([Fault("kind", _foreign(named.value))])
        if kind is None:
            named.fault(f"must be one of {', '.join(_BY_NAME)}")
    if kind is None:
        raise ManifestRefused(faults)
    if version is not None and version.value not in kind.versions:
        version.fault(f"must be {' or '.join(kind.versions)} for kind {kind.name}")
    metadata = read_metadata(fields, namespaced=kind.namespaced)
    _check_scope(kind, metadata, reader)
    found = kind.read(fields, metadata)
    fields.close()
    if faults:
        raise ManifestRefused(faults)
    key = ManifestKey(kind.name, metadata.namespace, metadata.name)
    return Manifest(key, _plain(document, metadata)), found


def _check_scope(kind: Kind, metadata: Metadata, reader: Reader) -> None:
    scope = metadata.annotations.get(SCOPE_ANNOTATION, SCOPES[0])
    if scope not in SCOPES:
        reader.fault(f"annotation {SCOPE_ANNOTATION} must be {' or '.join(SCOPES)}", show=False)
    elif scope == "mesh" and not kind.of_mesh:
        reader.fault(
            f"a {kind.name} is of its own cluster and cannot be applied for the whole mesh: that "
            f"is for {', '.join(each.name for each in KINDS if each.of_mesh)}",
            show=False,
        )
    elif scope == "mesh" and (size := len(json.dumps(reader.value))) > MAX_MANIFEST_BYTES:
        reader.fault(
            f"has {size} bytes: what is for the whole mesh may have {MAX_MANIFEST_BYTES}, or other "
            "clusters would not take it",
            show=False,
        )
    if origin := metadata.annotations.get(ORIGIN_ANNOTATION):
        reader.fault(
            f"is of cluster {origin} (annotation {ORIGIN_ANNOTATION}): apply it there", show=False
        )


def _foreign(kind: str) -> str:
    return f"a {kind} is not meshnet's, so it is left out: {FOREIGN[kind]}"


def _plain(document: dict[str, Any], metadata: Metadata) -> dict[str, Any]:
    """The document as its author wrote it: what a server added is left out."""
    kept = {name: value for name, value in document.items() if name != "status"}
    told = {k: v for k, v in document["metadata"].items() if k not in SERVER_FIELDS}
    if metadata.namespace:
        told = {"name": told.pop("name"), "namespace": metadata.namespace, **told}
    return {**kept, "metadata": told}
