"""Annotations of a Service: in which clusters it lives, and how its backends are checked.

Cilium's (`service.cilium.io/...`, and the older `io.cilium/...`) mean what they mean there;
`meshnet.io/...` adds what Cilium lacks: an order of clusters, weights, and slow shifts.
Source: facts of Cilium Cluster Mesh, Documentation/network/clustermesh/{services,affinity}.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from meshnet.manifests.metadata import Metadata
from meshnet.manifests.reader import Fault, Fields
from meshnet.model.service import Affinity, Check, Sharing

T = TypeVar("T")

GLOBAL = ("service.cilium.io/global", "io.cilium/global-service")
SHARED = ("service.cilium.io/shared", "io.cilium/shared-service")
AFFINITY = ("service.cilium.io/affinity", "io.cilium/service-affinity")
PREFERENCE = "meshnet.io/cluster-preference"
WEIGHTS = "meshnet.io/cluster-weights"
MIN_HEALTHY = "meshnet.io/min-healthy"
MAX_SHIFT = "meshnet.io/max-shift"
HEALTH_CHECK = "meshnet.io/health-check"
WEIGHT_MOST = 1000

_CLUSTER = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class _Wrong(ValueError):
    """What a value must be."""


def read_sharing(metadata: Metadata, document: Fields) -> Sharing:
    read = _Annotations(metadata, document)
    return Sharing(
        is_global=read(GLOBAL, _truth, False),
        shared=read(SHARED, _truth, True),
        affinity=read(AFFINITY, _affinity, Affinity.NONE),
        preference=read((PREFERENCE,), _clusters, ()),
        weights=read((WEIGHTS,), _weights, {}),
        min_healthy_percent=read((MIN_HEALTHY,), _percent, 1),
        max_shift_percent=read((MAX_SHIFT,), _percent, 100),
    )


def read_check(metadata: Metadata, document: Fields) -> Check | None:
    return _Annotations(metadata, document)((HEALTH_CHECK,), _check, None)


class _Annotations:
    def __init__(self, metadata: Metadata, document: Fields) -> None:
        self._given = metadata.annotations
        self._faults = document.reader.faults

    def __call__(self, keys: tuple[str, ...], parse: Callable[[str], T], default: T) -> T:
        """The first of `keys` that is there counts, as in Cilium."""
        for key in keys:
            if key in self._given:
                try:
                    return parse(self._given[key])
                except _Wrong as wrong:
                    path = f"metadata.annotations[{key}]"
                    self._faults.append(Fault(path, str(wrong), self._given[key]))
                return default
        return default


def _truth(text: str) -> bool:
    """Cilium compares with "true" in any case; anything else is false."""
    return text.lower() == "true"


def _affinity(text: str) -> Affinity:
    try:
        return Affinity(text.lower())
    except ValueError:
        raise _Wrong("must be none, local or remote") from None


def _clusters(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if not all(_CLUSTER.fullmatch(part) for part in found) or len(set(found)) < len(found):
        raise _Wrong("must be names of clusters with commas between, each once")
    return found


def _weights(text: str) -> dict[str, int]:
    found = {}
    for part in text.split(","):
        cluster, _, weight = part.strip().partition("=")
        if not _CLUSTER.fullmatch(cluster) or not re.fullmatch(r"\d{1,4}", weight):
            raise _Wrong(f"must be CLUSTER=WEIGHT,... with weights of 0 to {WEIGHT_MOST}")
        found[cluster] = int(weight)
    if max(found.values()) > WEIGHT_MOST:
        raise _Wrong(f"must be CLUSTER=WEIGHT,... with weights of 0 to {WEIGHT_MOST}")
    return found


def _percent(text: str) -> int:
    match = re.fullmatch(r"(\d{1,3})%", text.strip())
    if not match or not 1 <= int(match[1]) <= 100:
        raise _Wrong("must be 1% to 100%")
    return int(match[1])


def _check(text: str) -> Check:
    if text == "tcp":
        return Check()
    match = re.fullmatch(r"http:(/[!-~]*)", text)
    if not match:
        raise _Wrong("must be tcp or http:/PATH")
    return Check(path=match[1])
