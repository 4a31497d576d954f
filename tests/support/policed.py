"""One node with one endpoint, and manifests and identities as etcd would have them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import yaml

from meshnet.agent.context import Context
from meshnet.agent.endpoint_facts import EndpointRequest
from meshnet.agent.services import Services
from meshnet.manifests.kinds import read_manifest
from meshnet.model.identity import Identity, endpoint_labels
from meshnet.model.policy import TCP, Direction
from meshnet.model.ruling import Verdict
from meshnet.registry import codec, schema
from tests.support.node import Node

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 80}]}]
  egress: [{to: [{ipBlock: {cidr: 198.51.100.0/24}}]}]
"""
"""For endpoints as World.start makes them."""


class World:
    """One node with one endpoint, and manifests and identities as etcd would have them."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def apply(self, text: str) -> None:
        manifest = read_manifest(yaml.safe_load(text))
        self.node.view.tables.manifests.items[codec.manifest_key(manifest.key)] = manifest
        self.settle()

    async def start(self, *names: str) -> None:
        """Endpoints, each with a label `app` that is its name."""
        for name in names:
            wanted = EndpointRequest(name=name, labels={"app": name})
            endpoint = await self.node.endpoints.create(wanted)
            self.identity(endpoint.identity, app=name)

    def context(self) -> Context:
        """What the local API's answers are made from, as far as policy's need it."""
        node = self.node
        local = node.endpoints._local
        self.services = Services(local, node.view, node.dataplane, unreachable=frozenset)
        fake = SimpleNamespace(
            view=node.view,
            enforcement=node.enforcement,
            endpoints=node.endpoints,
            dataplane=node.dataplane,
            local=local,
            services=self.services,
        )
        return cast(Context, fake)

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
