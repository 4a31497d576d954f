"""A manifest: a document that an operator applied, and what names it."""

from __future__ import annotations

from typing import Any

import attrs

Document = dict[str, Any]
SCOPE_ANNOTATION = "meshnet.io/scope"
"""`mesh`: the other clusters of the mesh are told of it; `cluster`, as without it: they are not."""
SCOPES = ("cluster", "mesh")
ORIGIN_ANNOTATION = "meshnet.io/origin"
"""The cluster that a manifest shown by `get` is of: it cannot be applied elsewhere so."""


@attrs.frozen(order=True)
class ManifestKey:
    kind: str
    """As in the document: `NetworkPolicy`."""
    namespace: str
    """Empty for a kind that is of no namespace."""
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


def annotated(document: Document, annotation: str, value: str) -> Document:
    """A copy with one annotation more, or another value of it."""
    metadata = document["metadata"]
    annotations = {**(metadata.get("annotations") or {}), annotation: value}
    return {**document, "metadata": {**metadata, "annotations": annotations}}


@attrs.frozen(kw_only=True)
class SharedManifest:
    """One that another cluster applied for the whole mesh."""

    origin: str
    manifest: Manifest

    @property
    def shown(self) -> Document:
        """With the cluster that it is of."""
        return annotated(self.manifest.document, ORIGIN_ANNOTATION, self.origin)


@attrs.frozen
class Manifest:
    key: ManifestKey
    document: Document = attrs.field(eq=True)
    """As it was applied, without what a Kubernetes server adds on its own."""

    @property
    def of_mesh(self) -> bool:
        """The other clusters are told of it."""
        return self.annotations.get(SCOPE_ANNOTATION) == "mesh"

    @property
    def annotations(self) -> dict[str, str]:
        found: dict[str, str] = self.document["metadata"].get("annotations") or {}
        return found

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.document["metadata"].get("labels") or {}
        return found
