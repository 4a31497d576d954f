"""What labels each namespace has: part of the identity of every endpoint in it.

Namespaces exist implicitly, without labels of their own; a Namespace manifest gives them some.
"""

from __future__ import annotations

from meshnet.agent.seen import Table
from meshnet.manifests.kinds import meaning
from meshnet.model.manifest import Manifest
from meshnet.registry import schema

_PREFIX = schema.manifest("namespace", "", "")


class Namespaces:
    """`refresh` after the manifests changed; `labels_of` reads."""

    def __init__(self, manifests: Table[Manifest]) -> None:
        self._manifests = manifests
        self._labels: dict[str, dict[str, str]] | None = None

    def refresh(self) -> bool:
        """Whether any namespace has other labels than before."""
        if not self._manifests.synced:
            return False
        before = self._labels
        self._labels = {
            manifest.key.name: meaning(manifest)
            for key, manifest in self._manifests.items.items()
            if key.startswith(_PREFIX)
        }
        return self._labels != before

    def labels_of(self, namespace: str) -> dict[str, str] | None:
        """None before the first full listing: nothing is known of any namespace then."""
        return None if self._labels is None else self._labels.get(namespace, {})
