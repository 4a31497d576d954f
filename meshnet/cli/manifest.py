"""`meshnet apply`, `diff`, `get` and `delete`: manifests in the cluster's etcd."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from meshnet.cli import console, manifest_files
from meshnet.cli.arguments import OutputOption
from meshnet.cli.client import AgentClient
from meshnet.cli.console import Column, Output, Row
from meshnet.config import Paths
from meshnet.errors import UsageError
from meshnet.model.manifest import ORIGIN_ANNOTATION, SCOPE_ANNOTATION, Document

FilesOption = Annotated[
    list[str],
    typer.Option(
        "--filename", "-f", metavar="FILE|DIR|-", help="Manifests; - is standard input. Repeatable."
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", envvar="MESHNET_NAMESPACE", metavar="NS", help="Namespace."),
]
MeshOption = Annotated[
    bool,
    typer.Option("--mesh", help="For the whole mesh: the other clusters are told of them."),
]
MOST_BYTES = 512 << 10
"""Of one request; the agent takes twice this."""

COLUMNS = (
    Column("KIND", lambda row: row["kind"]),
    Column("NAMESPACE", lambda row: row["metadata"].get("namespace")),
    Column("NAME", lambda row: row["metadata"]["name"]),
    Column("SCOPE", lambda row: _annotation(row, SCOPE_ANNOTATION) or "cluster"),
    Column("ORIGIN", lambda row: _annotation(row, ORIGIN_ANNOTATION)),
    Column("LABELS", lambda row: row["metadata"].get("labels") or {}, wide=True),
)


def _annotation(row: Row, name: str) -> str:
    return str((row["metadata"].get("annotations") or {}).get(name, ""))


def register(root: typer.Typer) -> None:
    root.command("apply")(apply)
    root.command("diff")(diff)
    root.command("get")(get)
    root.command("delete")(delete)


def apply(
    filename: FilesOption,
    namespace: NamespaceOption = None,
    mesh: MeshOption = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Return when every node of this cluster has it in effect."),
    ] = False,
) -> None:
    """Store manifests. All are checked first: one fault, and nothing is stored. Kinds that are
    Kubernetes' and not meshnet's are left out by name, and the exit code is 1."""
    loaded = manifest_files.load(filename, namespace, of_mesh=mesh)
    for change in _post("apply", manifest_files.as_documents(loaded.manifests), wait=wait):
        print(f"{_title(change)} {change['action']}")
    if mesh:
        console.progress(
            "other clusters hold to it where `config get policies_from` names this one"
        )
    _tell_left_out(loaded)


def diff(
    filename: FilesOption, namespace: NamespaceOption = None, mesh: MeshOption = False
) -> None:
    """Show what `apply` would change. Exit code 1 when it would change something."""
    loaded = manifest_files.load(filename, namespace, of_mesh=mesh)
    changed = False
    for change in _post("diff", manifest_files.as_documents(loaded.manifests)):
        if change["action"] != "unchanged":
            changed = True
            sys.stdout.writelines(_unified(change))
    if changed:
        raise typer.Exit(1)


def get(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Such as networkpolicy, cnp, ns.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME")] = None,
    namespace: NamespaceOption = None,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Those of every namespace.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List manifests of a kind, or show one. `-o yaml` gives back what was applied. What another
    cluster applied for the whole mesh is there too, with its ORIGIN; a list in YAML is without
    it, so that it can be applied."""
    from meshnet.manifests.kinds import find_kind

    found = find_kind(kind)
    query: dict[str, Any] = {"kind": found.slug}
    if found.namespaced and not everywhere:
        query["namespace"] = namespace or "default"
    if name is not None:
        query["name"] = name
    documents = AgentClient(Paths.from_environment()).get("manifests", **query)
    if output.for_people:
        console.show(documents, COLUMNS, output)
    elif name is not None and len(documents) == 1:
        console.show_data(documents[0], output)
    else:
        console.show_data(_listed(documents, output), output)


def delete(
    kind: Annotated[str | None, typer.Argument(metavar="KIND")] = None,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME")] = None,
    filename: Annotated[
        list[str] | None, typer.Option("--filename", "-f", metavar="FILE|DIR|-", help="Manifests.")
    ] = None,
    namespace: NamespaceOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when no node has it in effect any more.")
    ] = False,
) -> None:
    """Delete manifests, by `-f` or by KIND and NAME."""
    from meshnet.manifests.kinds import find_kind

    if bool(filename) == bool(kind):
        raise UsageError("give either -f FILE or KIND NAME: see `meshnet delete --help`")
    if filename:
        keys = [each.key for each in manifest_files.load(filename, namespace).manifests]
        body = [{"kind": k.kind, "namespace": k.namespace, "name": k.name} for k in keys]
    else:
        if not names:
            raise UsageError(f"which {kind}? Give its NAME: `meshnet get {kind}` shows them")
        found = find_kind(kind or "")
        where = (namespace or "default") if found.namespaced else ""
        body = [{"kind": found.name, "namespace": where, "name": name} for name in names]
    client = AgentClient(Paths.from_environment())
    for change in client.post("manifests", "delete", body={"keys": body, "wait": wait}):
        print(f"{_title(change)} {change['action']}")


def _tell_left_out(loaded: manifest_files.Loaded) -> None:
    for each in loaded.foreign:
        console.warn(each)
    if loaded.foreign:
        raise typer.Exit(1)


def _listed(documents: list[Document], output: Output) -> Any:
    """JSON as an array, as every list; YAML as Kubernetes' List, which `apply` takes back: it
    would refuse what is another cluster's."""
    if output is Output.YAML:
        ours = [each for each in documents if not _annotation(each, ORIGIN_ANNOTATION)]
        return {"apiVersion": "v1", "kind": "List", "items": ours}
    return documents


def _post(what: str, documents: list[Document], **options: Any) -> list[Row]:
    client = AgentClient(Paths.from_environment())
    changes: list[Row] = []
    for batch in _batches(documents):
        changes += client.post("manifests", what, body={"documents": batch, **options})
    return changes


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """No request is larger than the agent takes."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        length = len(json.dumps(document))
        if batch and size + length > MOST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += length
    if batch:
        yield batch


def _title(change: Row) -> str:
    """`networkpolicy default/web`, in the words of the command line."""
    where = f"{change['namespace']}/" if change["namespace"] else ""
    return f"{change['kind'].lower()} {where}{change['name']}"


def _unified(change: Row) -> Iterator[str]:
    title = _title(change)
    yield from difflib.unified_diff(
        _lines(change["before"]), _lines(change["after"]), f"stored {title}", f"given {title}"
    )


def _lines(document: Document | None) -> list[str]:
    import yaml

    if document is None:
        return []
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).splitlines(keepends=True)
