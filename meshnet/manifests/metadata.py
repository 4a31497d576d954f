"""`metadata` of a manifest: its name, its namespace, its labels and annotations."""

from __future__ import annotations

import re

import attrs

from meshnet.errors import ConfigError
from meshnet.manifests.reader import Fields, Reader
from meshnet.model import names
from meshnet.model.identity import check_label

DEFAULT_NAMESPACE = "default"
SERVER_FIELDS = (
    "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink",
)  # fmt: skip
"""A Kubernetes server adds them; a manifest that was read from one has them."""

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@attrs.frozen
class Metadata:
    name: str
    namespace: str
    labels: dict[str, str]
    annotations: dict[str, str]


def read_metadata(document: Fields, *, namespaced: bool) -> Metadata:
    reader = document.require("metadata")
    if reader is None:
        return Metadata("", "", {}, {})
    fields = reader.fields()
    name, namespace = fields.require("name"), fields.take("namespace")
    where = DEFAULT_NAMESPACE if namespaced else ""
    if namespace is not None and namespaced:
        where = namespace.checked(lambda text: names.rfc1123_label("namespace", text))
    elif namespace is not None:
        namespace.fault("a manifest of this kind is of no namespace: leave it out")
    labels, annotations = fields.take("labels"), fields.take("annotations")
    found = Metadata(
        name=name.text(_SUBDOMAIN, "must be an RFC 1123 subdomain") if name else "",
        namespace=where,
        labels=_texts(labels, check=True) if labels else {},
        annotations=_texts(annotations, check=False) if annotations else {},
    )
    if len(found.name) > 253 and name:
        name.fault("has more than 253 characters")
    fields.ignore(*SERVER_FIELDS)
    fields.refuse({"ownerReferences": "nothing here deletes a manifest with its owner",
                   "finalizers": "nothing here waits for one",
                   "generateName": "give a name"})  # fmt: skip
    fields.close()
    return found


def _texts(reader: Reader, *, check: bool) -> dict[str, str]:
    if reader.value is None:
        return {}
    found = {}
    fields = reader.fields()
    for key in reader.value if isinstance(reader.value, dict) else ():
        item = fields.take(str(key))
        if item is None:
            continue
        found[key] = item.text()
        if check:
            try:
                check_label(key, found[key])
            except ConfigError as error:
                item.fault(str(error), show=False)
    return found
