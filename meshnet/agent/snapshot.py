"""What this node must know to forward before etcd answers: its cluster and its PodCIDRs.

Written whenever etcd confirmed it, read at start. With it an agent that starts while etcd
is down takes over its endpoints at once, and packets do not notice.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import attrs
import cattrs

from meshnet.model.addressing import PodCIDR, Prefix
from meshnet.model.cluster import Cluster

_converter = cattrs.Converter()
for _kind in (IPv4Network, IPv6Network):
    _converter.register_unstructure_hook(_kind, str)
_converter.register_structure_hook(Prefix, lambda text, _: ip_network(text))


@attrs.frozen(kw_only=True)
class NodeSnapshot:
    cluster: Cluster
    pod_cidrs: tuple[PodCIDR, ...]


def load(directory: Path) -> NodeSnapshot | None:
    """The snapshot, or None when there is none that this version can read."""
    try:
        raw = json.loads((directory / "node.json").read_text())
        return _converter.structure(raw, NodeSnapshot)
    except (FileNotFoundError, ValueError, cattrs.BaseValidationError):
        return None


def save(directory: Path, snapshot: NodeSnapshot) -> None:
    """Written whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = directory / "node.tmp"
    temporary.write_text(json.dumps(_converter.unstructure(snapshot)))
    temporary.replace(directory / "node.json")
