"""Manifests from files, directories and standard input, every fault of all of them at once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from meshnet.errors import ConfigError, ForeignKind, ManifestRefused, UsageError
from meshnet.model.manifest import SCOPE_ANNOTATION, Document, Manifest, annotated

SUFFIXES = (".yaml", ".yml", ".json")


@attrs.frozen
class Source:
    """Where a document is from, for messages: `shop.yaml, document 2`."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, document {self.number}"


@attrs.frozen
class Loaded:
    manifests: list[Manifest]
    foreign: list[str]
    """What was left out and why: an application's files name more than is meshnet's."""


def load(paths: Iterable[str], namespace: str | None = None, *, of_mesh: bool = False) -> Loaded:
    """Every manifest, in order, checked in every field.

    Args:
        namespace: of documents that name none.
        of_mesh: they are for the whole mesh, whatever their annotations say.

    Raises:
        ExceptionGroup: of ConfigError, one for each fault in any document.
    """
    from meshnet.manifests.kinds import read_manifest

    faults: list[ConfigError] = []
    found: dict[object, Source] = {}
    manifests: list[Manifest] = []
    foreign: list[str] = []
    for path in paths:
        for source, document in _documents(path, faults):
            try:
                given = _in_namespace(document, namespace)
                manifest = read_manifest(_for_the_mesh(given) if of_mesh else given)
            except ForeignKind as error:
                foreign += [f"{source}: {fault}" for fault in error.faults]
                continue
            except ManifestRefused as error:
                faults += [ConfigError(f"{source}: {fault}") for fault in error.faults]
                continue
            if (first := found.setdefault(manifest.key, source)) is not source:
                faults.append(ConfigError(f"{source}: {manifest.key} is in {first} already"))
            manifests.append(manifest)
    if faults:
        raise ExceptionGroup("manifests refused", faults)
    if not manifests and foreign:
        raise ExceptionGroup("manifests refused", [ConfigError(each) for each in foreign])
    if not manifests:
        raise UsageError(f"no manifest in {', '.join(paths)}: nothing to do")
    return Loaded(manifests, foreign)


def _in_namespace(document: Any, namespace: str | None) -> Any:
    if namespace is None or not isinstance(document, dict):
        return document
    from meshnet.manifests.kinds import KINDS

    namespaced = any(k.name == document.get("kind") and k.namespaced for k in KINDS)
    metadata = document.get("metadata")
    if not (namespaced and isinstance(metadata, dict)):
        return document
    return {**document, "metadata": {**metadata, "namespace": metadata.get("namespace", namespace)}}


def _for_the_mesh(document: Any) -> Any:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("annotations") or {}, dict):
        return document
    return annotated(document, SCOPE_ANNOTATION, "mesh")


def _documents(path: str, faults: list[ConfigError]) -> Iterator[tuple[Source, Any]]:
    for name, text in _texts(path, faults):
        yield from _parsed(name, text, faults)


def _texts(path: str, faults: list[ConfigError]) -> Iterator[tuple[str, str]]:
    if path == "-":
        yield "standard input", sys.stdin.read()
        return
    given = Path(path)
    files = sorted(f for f in given.rglob("*") if f.suffix in SUFFIXES) if given.is_dir() else [
        given
    ]  # fmt: skip
    if not files:
        faults.append(ConfigError(f"{path} has no {', '.join(SUFFIXES)} file in it"))
    for file in files:
        try:
            yield str(file), file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            faults.append(ConfigError(f"{file} cannot be read: {error}"))


def _parsed(name: str, text: str, faults: list[ConfigError]) -> Iterator[tuple[Source, Any]]:
    import yaml

    loader = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
    number = 0
    try:
        for document in yaml.load_all(text, loader):
            if document is None:  # nothing, or comments, between two `---`
                continue
            number += 1
            yield from _items(Source(name, number), document)
    except yaml.YAMLError as error:
        faults.append(
            ConfigError(f"{name}, document {number + 1} is no YAML: {' '.join(str(error).split())}")
        )


def _items(source: Source, document: Any) -> Iterator[tuple[Source, Any]]:
    """A `List` is what `get -o yaml` and kubectl give for several."""
    if isinstance(document, dict) and document.get("kind") == "List":
        items = document.get("items")
        for item in items if isinstance(items, list) else ():
            yield source, item
        return
    yield source, document


def as_documents(manifests: Iterable[Manifest]) -> list[Document]:
    return [manifest.document for manifest in manifests]
