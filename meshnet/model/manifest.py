"""A manifest: a document that an operator applied, and what names it."""

from __future__ import annotations

from typing import Any

import attrs

Document = dict[str, Any]


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


@attrs.frozen
class Manifest:
    key: ManifestKey
    document: Document = attrs.field(eq=True)
    """As it was applied, without what a Kubernetes server adds on its own."""

    @property
    def annotations(self) -> dict[str, str]:
        found: dict[str, str] = self.document["metadata"].get("annotations") or {}
        return found

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.document["metadata"].get("labels") or {}
        return found
