"""Manifests that are little more than their metadata: Namespace, CiliumCIDRGroup."""

from __future__ import annotations

from meshnet.manifests.metadata import Metadata
from meshnet.manifests.reader import Fields
from meshnet.model.policy import CidrGroup


def read_namespace(document: Fields, metadata: Metadata) -> dict[str, str]:
    """Its labels: they become part of the identity of every endpoint in it."""
    document.ignore("spec", "status")  # finalizers and phase: a server's business
    return metadata.labels


def read_cidr_group(document: Fields, metadata: Metadata) -> CidrGroup:
    found = []
    if spec := document.require("spec"):
        fields = spec.fields()
        if cidrs := fields.require("externalCIDRs"):
            found = [item.prefix() for item in cidrs.items()]
        fields.close()
    prefixes = frozenset(prefix for prefix in found if prefix is not None)
    return CidrGroup(name=metadata.name, labels=metadata.labels, prefixes=prefixes)
