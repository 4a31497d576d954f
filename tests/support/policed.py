"""One node with one endpoint, and manifests and identities as etcd would have them."""

from __future__ import annotations

from typing import Any

import yaml

from meshnet.manifests.kinds import read_manifest
from meshnet.model.identity import Identity, endpoint_labels
from meshnet.model.policy import TCP, Direction
from meshnet.model.ruling import Verdict
from meshnet.registry import codec, schema
from tests.support.node import Node


class World:
    """One node with one endpoint, and manifests and identities as etcd would have them."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def apply(self, text: str) -> None:
        manifest = read_manifest(yaml.safe_load(text))
        self.node.view.tables.manifests.items[codec.manifest_key(manifest.key)] = manifest
        self.settle()

    def delete_all(self) -> None:
        self.node.view.tables.manifests.items.clear()
        self.settle()

    def identity(self, number: int, cluster: str = "east", **labels: str) -> None:
        full = endpoint_labels(labels, namespace="default", cluster=cluster)
        table = self.node.view.tables.identities
        table.items[schema.identity(number)] = Identity(number, full)
        self.settle()

    def settle(self) -> None:
        self.node.enforcement.reconcile()
        self.node.enforcement.sweep()

    def judge(self, remote: int, port: int, direction: Direction = Direction.INGRESS) -> Verdict:
        (row,) = self.node.dataplane.endpoints().values()
        return self.node.dataplane.judge(row, direction, remote, TCP, port)

    @property
    def row(self) -> Any:
        (row,) = self.node.dataplane.endpoints().values()
        return row
