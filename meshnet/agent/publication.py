"""What this node tells the mesh of its endpoints: identities allocated, keys put.

Every key hangs on the node's lease through the Session, so all of them go when the node
does. Order matters to others: the identity's number exists before an address names it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import attrs

from meshnet.agent.local import LocalNode
from meshnet.kvstore.api import KV
from meshnet.model.addressing import host_prefix
from meshnet.model.endpoint import Endpoint, IpEntry
from meshnet.model.identity import LabelSet, endpoint_labels
from meshnet.registry import allocator, codec, schema
from meshnet.registry.session import Session

NEW_IDENTITY_SETTLE_S = 0.2
"""An endpoint whose number is new is ready this long after its keys are committed, so
that others know the number before the first packet carries it."""


class Publication:
    """Writes this node's endpoint keys and nothing else."""

    def __init__(self, local: LocalNode, kv: KV, session: Session) -> None:
        self._local = local
        self._kv = kv
        self._session = session
        self._users: defaultdict[int, set[int]] = defaultdict(set)
        """Identity number -> ids of the endpoints here that have it."""

    async def identify(self, endpoint: Endpoint) -> tuple[Endpoint, bool]:
        """The endpoint with its identity, and whether the number was new to the cluster."""
        labels = self.labels(endpoint)
        known = await self._kv.get(schema.identity_allocation(labels))
        number = await allocator.allocate_identity(self._kv, self._local.cluster.id, labels)
        return attrs.evolve(endpoint, identity=number), known is None

    def labels(self, endpoint: Endpoint) -> LabelSet:
        return endpoint_labels(
            endpoint.labels,
            namespace=endpoint.namespace,
            cluster=self._local.cluster.name,
            namespace_labels=endpoint.namespace_labels,
        )

    async def settle(self, *, fresh: bool) -> None:
        """Wait until others know a new number."""
        if fresh:
            await asyncio.sleep(NEW_IDENTITY_SETTLE_S)

    async def publish(self, endpoint: Endpoint, *, fresh: bool) -> None:
        """Put all keys of one endpoint; with a new identity also wait until it is known."""
        self.want(endpoint)
        await self._session.flush()
        await self.settle(fresh=fresh)

    def want(self, endpoint: Endpoint) -> None:
        """Name the endpoint's keys to the session, which writes them when it can."""
        self._users[endpoint.identity].add(endpoint.id)
        self._session.want(self._identity_key(endpoint), str(endpoint.identity).encode())
        for key, value in self._keys(endpoint).items():
            self._session.want(key, value)

    async def withdraw(self, endpoint: Endpoint) -> None:
        """Delete the endpoint's keys, and with its last user our use of the identity."""
        if not endpoint.identity:
            return  # nobody was told of it
        for key in self._keys(endpoint):
            self._session.forget(key)
        self._release(endpoint)
        await self._session.flush()

    async def renumber(self, before: Endpoint, after: Endpoint) -> None:
        """The same endpoint under another identity: its keys change in place, none goes."""
        self.want(after)
        if before.identity != after.identity:
            self._release(before)
        await self._session.flush()

    def _release(self, endpoint: Endpoint) -> None:
        self._users[endpoint.identity].discard(endpoint.id)
        if not self._users[endpoint.identity]:
            del self._users[endpoint.identity]
            self._session.forget(self._identity_key(endpoint))

    def _identity_key(self, endpoint: Endpoint) -> str:
        return schema.identity_value(self.labels(endpoint), self._local.name)

    def _keys(self, endpoint: Endpoint) -> dict[str, bytes]:
        host = self._local.underlay.addresses[0]
        keys: dict[str, bytes] = {}
        for address in endpoint.addresses:
            entry = IpEntry(
                prefix=host_prefix(address),
                host=host,
                identity=endpoint.identity,
                name=endpoint.name,
                namespace=endpoint.namespace,
                node=self._local.name,
                endpoint_id=endpoint.id,
                named_ports=endpoint.ports,
            )
            keys[schema.ip(address)] = codec.encode_ip_entry(entry)
        keys[schema.endpoint(self._local.name, endpoint.id)] = codec.encode_endpoint(endpoint)
        return keys
