"""Security identities: a set of labels with a number.

The number has 24 bits on the wire. Its upper 8 bits are the cluster id, its lower 16
bits are drawn from 256..65535; numbers below 256 are reserved and mean the same in
every cluster (Cilium: pkg/identity/numericidentity.go).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping

import attrs

from meshnet.errors import InvalidLabel

CLUSTER_SHIFT = 16
FIRST_LOCAL = 256
LAST_LOCAL = 65535

SOURCE = "k8s"
"""The one label source, so that Cilium's selectors match ours."""
CLUSTER_LABEL = "io.cilium.k8s.policy.cluster"
NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
SERVICE_ACCOUNT_LABEL = "io.cilium.k8s.policy.serviceaccount"
NAMESPACE_META_PREFIX = "io.cilium.k8s.namespace.labels."
RESERVED_PREFIXES = ("io.cilium.", "io.kubernetes.")

_KEY = re.compile(
    r"^([a-z0-9A-Z]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?/)?[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$"
)
_VALUE = re.compile(r"^([a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?)?$")


class ReservedIdentity(enum.IntEnum):
    """Numbers that need no allocation and are the same everywhere."""

    UNKNOWN = 0
    HOST = 1
    WORLD = 2
    UNMANAGED = 3
    HEALTH = 4
    INIT = 5
    REMOTE_NODE = 6
    KUBE_APISERVER = 7
    INGRESS = 8


def cluster_of(number: int) -> int:
    """The cluster id in an identity's number; 0 for a reserved one."""
    return number >> CLUSTER_SHIFT


def belongs_to(number: int, cluster_id: int) -> bool:
    """Whether a number may be used by endpoints of that cluster.

    Cilium's clusters use local numbers below FIRST_LOCAL too: with a cluster id above them
    they are not the reserved ones (131073 was accepted by its agents).
    """
    return cluster_id > 0 and cluster_of(number) == cluster_id


def check_user_label(key: str, value: str) -> None:
    """Refuse what would forge our own labels or break the canonical text."""
    if key.startswith(RESERVED_PREFIXES):
        raise InvalidLabel(
            f"label {key!r} is reserved: keys of users may not start with "
            f"{' or '.join(RESERVED_PREFIXES)}"
        )
    check_label(key, value)


def check_label(key: str, value: str) -> None:
    """Kubernetes' rules for the key and the value of any label."""
    if len(key.rpartition("/")[2]) > 63 or not _KEY.match(key):
        raise InvalidLabel(
            f"label key {key!r} is invalid: letters, digits, '-', '_', '.' and one "
            "'/', 63 characters at most after it"
        )
    if len(value) > 63 or not _VALUE.match(value):
        raise InvalidLabel(
            f"label {key}={value!r} is invalid: a value has letters, digits, '-', "
            "'_' and '.', 63 characters at most"
        )


def _sorted_pairs(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(pairs))


@attrs.frozen
class LabelSet:
    """Labels as `source:key -> value`. Its canonical text names an identity in etcd."""

    labels: tuple[tuple[str, str], ...] = attrs.field(converter=_sorted_pairs)

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> LabelSet:
        return cls(labels.items())

    @classmethod
    def parse(cls, text: str) -> LabelSet:
        """Read the canonical text. Raises ValueError when it is not one."""
        if not text.endswith(";"):
            raise ValueError("labels must end with ';'")
        pairs = []
        for part in text[:-1].split(";"):
            key, separator, value = part.partition("=")
            if not separator or ":" not in key:
                raise ValueError(f"label {part!r} is not source:key=value")
            pairs.append((key, value))
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a label stands there twice")
        return cls(pairs)

    def __str__(self) -> str:
        """`source:key=value;` sorted bytewise, with the trailing semicolon."""
        return "".join(sorted(f"{key}={value};" for key, value in self.labels))

    def get(self, key: str) -> str | None:
        """The value of a label of our source, or None."""
        return dict(self.labels).get(f"{SOURCE}:{key}")

    def as_dict(self) -> dict[str, str]:
        return dict(self.labels)

    def user_labels(self) -> dict[str, str]:
        """What the operator gave: our own labels and the source left out."""
        plain = ((key.partition(":")[2], value) for key, value in self.labels)
        return {key: value for key, value in plain if not key.startswith(RESERVED_PREFIXES)}


@attrs.frozen
class Identity:
    number: int
    labels: LabelSet

    @property
    def cluster_id(self) -> int:
        return cluster_of(self.number)


def endpoint_labels(
    user: Mapping[str, str],
    *,
    namespace: str,
    cluster: str,
    namespace_labels: Mapping[str, str] | None = None,
) -> LabelSet:
    """The full label set of an endpoint, as Cilium would derive it for a pod."""
    for key, value in user.items():
        check_user_label(key, value)
    # The name last: a namespace's own labels must not pass it off as another.
    meta = {**(namespace_labels or {}), "kubernetes.io/metadata.name": namespace}
    pairs: Iterable[tuple[str, str]] = [
        *user.items(),
        (NAMESPACE_LABEL, namespace),
        (CLUSTER_LABEL, cluster),
        (SERVICE_ACCOUNT_LABEL, "default"),
        *((NAMESPACE_META_PREFIX + key, value) for key, value in meta.items()),
    ]
    return LabelSet((f"{SOURCE}:{key}", value) for key, value in pairs)
