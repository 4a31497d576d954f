"""Manifests in the cluster's etcd: what `meshnet apply`, `diff`, `get` and `delete` do.

Every write compares the key's revision with the one that was read, so two operators who
apply at once never lose one's change unseen; a lost race is read again.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Protocol

import attrs

from meshnet.agent.seen import Table
from meshnet.errors import Conflict, NotFound, Refused
from meshnet.kvstore.api import KV, Delete, Deleted, Unchanged
from meshnet.kvstore.patience import ride
from meshnet.logic.admission import MAX_MANIFESTS
from meshnet.manifests.kinds import find_kind
from meshnet.model.manifest import Document, Manifest, ManifestKey, SharedManifest
from meshnet.registry import codec, schema
from meshnet.registry.store import Stored, get_item, list_items, put_if

RACES = 5
"""Lost in a row before the caller is told."""


class Action(enum.StrEnum):
    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


@attrs.frozen(kw_only=True)
class Change:
    """What became of a manifest, or would; field names are JSON keys."""

    kind: str
    namespace: str
    name: str
    action: Action
    before: Document | None
    after: Document | None
    revision: int = 0
    """etcd's, of the write."""


class Admission(Protocol):
    """What a kind needs beside its manifest, such as addresses."""

    async def admit(self, manifest: Manifest, stored: Sequence[Manifest]) -> None:
        """Before it is written. Raises MeshnetError: then it is not written.

        Args:
            stored: every manifest of the cluster.
        """

    async def gone(self, key: ManifestKey) -> None:
        """After it was deleted; harmless when repeated."""


class Manifests:
    """Reads and writes `meshnet/v1/manifests/`; what a kind needs beside it is its Admission's."""

    def __init__(self, kv: KV, admissions: Mapping[str, Admission] | None = None) -> None:
        self._kv = kv
        self._admissions = admissions or {}

    async def find(
        self, kind: str | None = None, namespace: str | None = None, name: str | None = None
    ) -> list[Manifest]:
        """Sorted by key. Raises NotFound for a `name` that nothing has."""
        prefix = schema.MANIFESTS
        if kind is not None:
            prefix += f"{find_kind(kind).slug}/"
        found = [
            codec.decode_manifest(pair.key, pair.value)
            for pair in (await self._kv.list(prefix)).pairs
        ]
        chosen = [
            manifest
            for manifest in found
            if namespace in (None, manifest.key.namespace) and name in (None, manifest.key.name)
        ]
        if name is not None and not chosen:
            what = find_kind(kind).name if kind else "manifest"
            where = f" in namespace {namespace}" if namespace else ""
            raise NotFound(
                f"no {what} {name!r}{where}; `meshnet get {kind} -A` shows all there are"
            )
        return sorted(chosen, key=lambda manifest: manifest.key)

    async def of_others(
        self, kind: str | None = None, namespace: str | None = None, name: str | None = None
    ) -> list[SharedManifest]:
        """What other clusters applied for the whole mesh, whether it holds here or not."""
        wanted = find_kind(kind).name if kind is not None else None
        stored = await list_items(
            self._kv, schema.CACHE_MANIFESTS, codec.decode_shared_manifest, lambda _: None
        )
        return [
            each.item
            for each in stored
            if wanted in (None, each.item.manifest.key.kind)
            and namespace in (None, each.item.manifest.key.namespace)
            and name in (None, each.item.manifest.key.name)
        ]

    async def diff(self, manifests: Iterable[Manifest]) -> list[Change]:
        """What `apply` would do."""
        return [_change(each, await self._stored(each.key)) for each in manifests]

    async def apply(self, manifests: Sequence[Manifest]) -> list[Change]:
        """Raises Refused, before anything is stored, for more than other clusters would take."""
        wanted = {manifest.key for manifest in manifests if manifest.of_mesh}
        if wanted:
            shared = {each.key for each in await self.find() if each.of_mesh} | wanted
            if len(shared) > MAX_MANIFESTS:
                raise Refused(
                    f"{len(shared)} manifests would be for the whole mesh: {MAX_MANIFESTS} at most"
                )
        return [await self._apply(each) for each in manifests]

    async def delete(self, keys: Sequence[ManifestKey]) -> list[Change]:
        """Once begun it rides over a restart of etcd, for a repeated one would find some gone.

        Raises:
            NotFound: one is not there; nothing was deleted.
        """
        missing = [key for key in keys if await self._stored(key) is None]
        if missing:
            of = {each.manifest.key: each.origin for each in await self.of_others()}
            raise NotFound(
                "; ".join(
                    f"{key} is of cluster {of[key]}: delete it there"
                    if key in of
                    else f"{key} is not applied, so there is nothing to delete"
                    for key in missing
                )
            )
        return [await self._delete(key) for key in keys]

    async def _apply(self, manifest: Manifest) -> Change:
        key = codec.manifest_key(manifest.key)
        for _ in range(RACES):
            pair = await get_item(self._kv, key, codec.decode_manifest)
            change = _change(manifest, pair.item if pair else None)
            if admission := self._admissions.get(manifest.key.kind):
                await admission.admit(manifest, await self.find())
            if change.action is Action.UNCHANGED:
                return attrs.evolve(change, revision=pair.mod_revision if pair else 0)
            try:
                revision = await put_if(
                    self._kv,
                    key,
                    codec.encode_manifest(manifest),
                    unchanged=pair.mod_revision if pair else 0,
                )
            except Conflict:
                continue
            return attrs.evolve(change, revision=revision)
        raise Conflict(f"{manifest.key} is changed by somebody else all the time: try again")

    async def _delete(self, key: ManifestKey) -> Change:
        path = codec.manifest_key(key)
        last: Stored[Manifest] | None = None
        for _ in range(RACES):
            pair = await ride(partial(get_item, self._kv, path, codec.decode_manifest))
            if pair is None:  # after `last`: by a try of ours whose answer was lost
                revision = await ride(partial(self._deleted_at, last)) if last else 0
                break
            last = pair
            compare = (Unchanged(path, pair.mod_revision),)
            result = await ride(partial(self._kv.txn, compare, (Delete(path),)))
            if result.succeeded:
                revision = result.revision
                break
        else:
            raise Conflict(f"{key} is changed by somebody else all the time: try again")
        if last and (admission := self._admissions.get(key.kind)):
            await ride(partial(admission.gone, key))
        before = last.item.document if last else None
        return attrs.evolve(_DELETED, **attrs.asdict(key), before=before, revision=revision)

    async def _deleted_at(self, last: Stored[Manifest]) -> int:
        """The revision at which what was read as `last` went."""
        async with aclosing(self._kv.watch(last.key, after=last.mod_revision)) as batches:
            async for batch in batches:
                if isinstance(batch.events[-1], Deleted):
                    return batch.revision
        raise AssertionError("a watch has no end")

    async def _stored(self, key: ManifestKey) -> Manifest | None:
        found = await get_item(self._kv, codec.manifest_key(key), codec.decode_manifest)
        return found.item if found else None


_DELETED = Change(
    kind="", namespace="", name="", action=Action.DELETED, before=None, after=None
)  # fmt: skip


def _change(manifest: Manifest, stored: Manifest | None) -> Change:
    before = stored.document if stored else None
    if before is None:
        action = Action.CREATED
    else:
        same = before == manifest.document
        action = Action.UNCHANGED if same else Action.CONFIGURED
    return Change(
        kind=manifest.key.kind,
        namespace=manifest.key.namespace,
        name=manifest.key.name,
        action=action,
        before=before,
        after=manifest.document,
    )


def shared(own: str, stored: Table[Manifest]) -> dict[str, bytes] | None:
    """What other clusters are told of this one's manifests, by key; None: not known yet."""
    if not stored.synced:
        return None
    return {
        codec.shared_manifest_key(own, manifest.key): codec.encode_manifest(manifest)
        for manifest in stored.items.values()
        if manifest.of_mesh
    }
