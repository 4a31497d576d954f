"""The endpoints of this node: made, kept alive, taken over after a restart, taken away.

Owns: every veth named `mesh<id>`, every network namespace it made, the endpoint files in
the run directory, the endpoint rows of the dataplane, and (through Publication) this
node's endpoint keys in etcd. It touches nothing else.

An endpoint is made in one order and unmade in the reverse: name and addresses reserved,
interface, identity, dataplane rows, file, keys. A failure unmakes what was made, and what
could not be unmade is tried again by the next full pass. Whoever changes an endpoint holds
its lock: it ends once, though its owner's end, `delete` and a full pass may all call for it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any
from weakref import WeakValueDictionary

import attrs
import structlog

from meshnet.agent import endpoint_facts as facts
from meshnet.agent.endpoint_facts import EndpointRequest, Labels, label_of
from meshnet.agent.endpoint_store import EndpointStore
from meshnet.agent.enforcement import Enforcement
from meshnet.agent.local import LocalNode, ipv4, ipv6
from meshnet.agent.ownership import Ownership
from meshnet.agent.publication import Publication
from meshnet.dataplane.api import Dataplane
from meshnet.errors import AlreadyExists, MeshnetError, NotFound, PoolExhausted
from meshnet.host import process
from meshnet.logic.ipam import AddressPool
from meshnet.model.addressing import Address, contains
from meshnet.model.dataplane import EndpointRow
from meshnet.model.endpoint import Endpoint, EndpointState, OwnerProcess
from meshnet.model.kernel import ENDPOINT_IFNAME_PREFIX, Veth
from meshnet.netlink.api import Netlink

Spawn = Callable[[Coroutine[Any, Any, None]], object]
Key = tuple[str, str]
NamespaceLabels = Callable[[str], dict[str, str] | None]
"""Of a namespace by name; None before they are known."""

LAST_ID = 65535
_OUR_LINK = re.compile(rf"{ENDPOINT_IFNAME_PREFIX}\d+")
OWNER_GRACE_S = 5.0
"""How long an owner gets between TERM and KILL."""


class Endpoints:
    """All endpoints of this node, by (namespace, name)."""

    def __init__(
        self,
        *,
        local: LocalNode,
        netlink: Netlink,
        dataplane: Dataplane,
        store: EndpointStore,
        publication: Publication,
        enforcement: Enforcement,
        ownership: Ownership,
        spawn: Spawn,
        namespace_labels: NamespaceLabels,
    ) -> None:
        self._local = local
        self._netlink = netlink
        self._dataplane = dataplane
        self._store = store
        self._publication = publication
        self._enforcement = enforcement
        self._ownership = ownership
        self._spawn = spawn
        self._namespace_labels = namespace_labels
        self._endpoints: dict[Key, Endpoint] = {}
        self._ending: set[Key] = set()
        """Unmade in part: the rest is due."""
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._pools = {c.network.version: AddressPool(c) for c in local.pod_cidrs}
        self._last_id = 0
        self.route_mtu: Callable[[], int] = lambda: local.endpoint_mtu
        """What their default routes are to have now."""
        self._routed: dict[Key, int] = {}
        """What they have."""
        self._log = structlog.get_logger()

    def list(self) -> list[Endpoint]:
        return sorted(self._endpoints.values(), key=lambda e: e.key)

    def get(self, namespace: str, name: str) -> Endpoint:
        """Raises NotFound."""
        try:
            return self._endpoints[namespace, name]
        except KeyError:
            raise NotFound(
                f"no endpoint {namespace}/{name} on node {self._local.name}; "
                "`meshnet endpoint list --all-clusters` shows where endpoints are"
            ) from None

    async def create(self, request: EndpointRequest) -> Endpoint:
        """Make an endpoint and answer when it is ready. All or nothing."""
        endpoint = self._reserve(request)
        async with self._changing(endpoint.key):
            try:
                endpoint = await self._make(endpoint)
            except BaseException:
                await self._unmake_if_possible(self._endpoints[endpoint.key])
                raise
        self._watch_owner(endpoint)
        self._log.info("endpoint ready", endpoint=label_of(endpoint), identity=endpoint.identity)
        return endpoint

    async def adopt(self, namespace: str, name: str, *, pid: int, log: str | None) -> Endpoint:
        """Tie an endpoint to a process: it ends when the process ends, and with no other."""
        owner = facts.owner_of(pid)
        async with self._changing((namespace, name)):
            before = self.get(namespace, name)
            endpoint = attrs.evolve(before, owner=owner, log=log or before.log)
            self._store.save(endpoint)
            self._keep(endpoint)
        if before.owner != owner:
            self._watch_owner(endpoint)
        return endpoint

    async def delete(self, namespace: str, name: str) -> None:
        """End the owner (TERM, 5 s, KILL), tell the mesh, take the interface away."""
        endpoint = self.get(namespace, name)
        async with self._changing(endpoint.key):  # one that is being made is made first
            endpoint = self._endpoints.get(endpoint.key, endpoint)
        await self._finish(endpoint)

    async def restore(self) -> None:
        """Take over what an earlier agent left: live endpoints go on, dead ones go away, and
        so do those it had not finished. What cannot be done now is left to the full pass."""
        for endpoint in self._store.load():
            self._keep(endpoint)
            self._enforcement.know(endpoint, self._publication.labels(endpoint))
            self._last_id = max(self._last_id, endpoint.id)
            for address in endpoint.addresses:
                if (pool := self._pools.get(address.version)) is not None:
                    pool.take(address)
        for endpoint in self.list():
            if not (self._finished(endpoint) and facts.is_alive(endpoint)):
                self._ending.add(endpoint.key)
                continue
            try:
                await self._attach_again(endpoint)
            except MeshnetError as error:
                self._log.warning("not attached", endpoint=label_of(endpoint), error=str(error))
            self._watch_owner(endpoint)

    async def reconcile(self) -> None:
        """Full pass: the kernel has exactly our endpoints' interfaces and rows. What it lists
        says nothing of endpoints that are made or changed meanwhile."""
        errors: list[MeshnetError] = []
        known = self.list()
        links, rows = await self._links(), self._dataplane.endpoints()
        ours = {endpoint.host_ifname for endpoint in self.list()}
        for name in links.keys() - ours:
            await self._netlink.delete_link(name)
        for endpoint in known:
            try:
                await self._reconcile_one(endpoint, rows.get(links.get(endpoint.host_ifname, 0)))
            except MeshnetError as error:  # one bad endpoint must not hold up the rest
                errors.append(error)
        attached = set(self._dataplane.endpoints())
        for ifindex in attached - set((await self._links()).values()):
            self._dataplane.detach_endpoint(ifindex)
        if errors:
            raise ExceptionGroup("endpoints not reconciled", errors)

    async def _reconcile_one(self, endpoint: Endpoint, row: EndpointRow | None) -> None:
        """`row`: what the dataplane had for its interface, if that was there."""
        if endpoint.key in self._ending:
            await self._end(endpoint, "endpoint ended")
        elif (endpoint.state, self._endpoints.get(endpoint.key)) != (EndpointState.READY, endpoint):
            pass  # it is being made, or another now
        elif not facts.is_alive(endpoint):
            await self._end(endpoint, "endpoint ended: its process or its namespace is gone")
        elif (
            row is None
            or (row.endpoint_id, row.identity) != (endpoint.id, endpoint.identity)
            or self._routed.get(endpoint.key) != self.route_mtu()
        ):
            async with self._changing(endpoint.key):
                if self._endpoints.get(endpoint.key) is endpoint:
                    await self._attach_again(endpoint)
                    self._log.info("endpoint repaired", endpoint=label_of(endpoint))
        else:
            await self._identify_again(endpoint)

    async def _identify_again(self, endpoint: Endpoint) -> None:
        """Its namespace has other labels now: another identity."""
        labels = self._namespace_labels(endpoint.namespace)
        if labels is None or labels == endpoint.namespace_labels:
            return
        async with self._changing(endpoint.key):
            if self._endpoints.get(endpoint.key) is endpoint:
                await self._become(endpoint, attrs.evolve(endpoint, namespace_labels=labels))

    async def amend(
        self, namespace: str, name: str, *, labels: Labels | None = None, audit: bool | None = None
    ) -> Endpoint:
        """Give a live endpoint other labels (None: that one goes), or audit it. Answers when
        it obeys its new policy."""
        self.get(namespace, name)
        async with self._changing((namespace, name)):
            endpoint = self.get(namespace, name)
            return await self._become(endpoint, facts.amended(endpoint, labels or {}, audit))

    async def _become(self, endpoint: Endpoint, wanted: Endpoint) -> Endpoint:
        """Change what an endpoint is, without a gap in its traffic.

        The number first, then its addresses' keys, and the dataplane last: what leaves the
        endpoint bears the old number, which is good to others, until they know the new one.
        """
        changed, fresh = await self._publication.identify(wanted)
        await self._publication.settle(fresh=fresh)
        await self._publication.renumber(endpoint, changed)
        await self._enforcement.admit(changed, self._publication.labels(changed))
        await self._attach_again(changed)
        self._store.save(changed)
        self._keep(changed)
        numbers = {"before": endpoint.identity, "identity": changed.identity}
        self._log.info("endpoint changed", endpoint=label_of(changed), **numbers)
        return changed

    @property
    def settled(self) -> bool:
        """Every endpoint has the identity that its namespace's labels give it."""
        return all(
            self._namespace_labels(endpoint.namespace) == endpoint.namespace_labels
            for endpoint in self.list()
            if endpoint.state is EndpointState.READY and endpoint.key not in self._ending
        )

    def want_published(self) -> None:
        """Name the keys of every endpoint to the session, which writes them when it can."""
        for endpoint in self.list():
            if endpoint.key not in self._ending:
                self._publication.want(endpoint)

    async def delete_all(self) -> None:
        """Raises the first refusal, after every other endpoint went."""
        outcomes = await asyncio.gather(*map(self._finish, self.list()), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def _changing(self, key: Key) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    async def _links(self) -> dict[str, int]:
        found = await self._netlink.list_veths(ENDPOINT_IFNAME_PREFIX)
        return {name: ifindex for name, ifindex in found.items() if _OUR_LINK.fullmatch(name)}

    async def _make(self, endpoint: Endpoint) -> Endpoint:
        """Every step after the reservation. Each is noted before the next may fail."""
        if endpoint.owns_netns:
            path = await self._netlink.create_netns(facts.netns_name(endpoint))
            endpoint = self._keep(attrs.evolve(endpoint, netns=path))
        veth = await self._create_veth(endpoint)
        labels = self._namespace_labels(endpoint.namespace) or {}
        endpoint = attrs.evolve(endpoint, namespace_labels=labels)
        endpoint, fresh = await self._publication.identify(endpoint)
        self._keep(endpoint)
        await self._enforcement.admit(endpoint, self._publication.labels(endpoint))
        self._dataplane.attach_endpoint(self._enforcement.policed(facts.row_of(endpoint, veth)))
        self._store.save(endpoint)
        await self._publication.publish(endpoint, fresh=fresh)
        endpoint = attrs.evolve(endpoint, state=EndpointState.READY)
        self._store.save(endpoint)
        return self._keep(endpoint)

    def _reserve(self, request: EndpointRequest) -> Endpoint:
        """Take the name, a number and addresses before the first await."""
        self._ownership.require()
        facts.check(request)
        held = self._endpoints.get((request.namespace, request.name))
        if held is not None:
            raise AlreadyExists(
                f"endpoint {label_of(held)} is taken on node {self._local.name}; choose another "
                f"--name or run `meshnet endpoint delete {label_of(held)}`"
            )
        addresses: dict[int, Address] = {}
        try:
            for version, pool in self._pools.items():
                addresses[version] = pool.allocate()
            address4 = ipv4(addresses[4])
            assert address4 is not None
            endpoint = Endpoint(
                id=self._free_id(),
                name=request.name,
                namespace=request.namespace,
                labels=dict(request.labels),
                ports=dict(request.ports),
                ipv4=address4,
                ipv6=ipv6(addresses.get(6)),
                netns=request.netns or "",
                ifname=request.ifname,
                owns_netns=request.netns is None,
                owner=None if request.owner_pid is None else facts.owner_of(request.owner_pid),
            )
        except BaseException:
            for address in addresses.values():
                self._pools[address.version].release(address)
            raise
        return self._keep(endpoint)

    def _free_id(self) -> int:
        """The next number that is free; a number is not used again soon."""
        taken = {endpoint.id for endpoint in self._endpoints.values()}
        for step in range(1, LAST_ID + 1):
            candidate = (self._last_id + step - 1) % LAST_ID + 1
            if candidate not in taken:
                self._last_id = candidate
                return candidate
        raise PoolExhausted(
            f"node {self._local.name} has {LAST_ID} endpoints, the most there can be"
        )

    def _keep(self, endpoint: Endpoint) -> Endpoint:
        self._endpoints[endpoint.key] = endpoint
        return endpoint

    def _finished(self, endpoint: Endpoint) -> bool:
        """It was made in full, and its addresses are still this node's to give."""
        pools = self._pools
        return endpoint.state is EndpointState.READY and all(
            address.version in pools and contains(pools[address.version].cidr.network, address)
            for address in endpoint.addresses
        )

    async def _create_veth(self, endpoint: Endpoint) -> Veth:
        mtu = self.route_mtu()
        veth = await self._netlink.create_veth(facts.veth_spec(endpoint, self._local, mtu))
        self._routed[endpoint.key] = mtu
        return veth

    async def _attach_again(self, endpoint: Endpoint) -> None:
        veth = await self._create_veth(endpoint)
        self._dataplane.attach_endpoint(self._enforcement.policed(facts.row_of(endpoint, veth)))

    async def _finish(self, endpoint: Endpoint) -> None:
        """End its owner, and then itself."""
        if endpoint.owner is not None:
            await process.terminate(
                endpoint.owner.pid, endpoint.owner.start_time, grace_s=OWNER_GRACE_S
            )
        await self._end(endpoint, "endpoint deleted")

    async def _end(self, ended: Endpoint, event: str) -> None:
        """Unmake it, unless somebody else did so already."""
        async with self._changing(ended.key):
            endpoint = self._endpoints.get(ended.key)
            if endpoint is not None and endpoint.id == ended.id:
                await self._unmake(endpoint)
                self._log.info(event, endpoint=label_of(endpoint))

    async def _unmake_if_possible(self, endpoint: Endpoint) -> None:
        """`_unmake` after a failure, which must not be hidden by another one."""
        try:
            await self._unmake(endpoint)
        except MeshnetError as error:
            self._log.warning("not unmade yet", endpoint=label_of(endpoint), error=str(error))

    async def _unmake(self, endpoint: Endpoint) -> None:
        """Take away all there is of it, in the reverse order. Repeating it is harmless."""
        self._ending.add(endpoint.key)
        try:
            await self._publication.withdraw(endpoint)
        except MeshnetError as error:  # the lease will take the keys: the interface must go now
            self._log.warning("keys not withdrawn", endpoint=label_of(endpoint), error=str(error))
        links = await self._netlink.list_veths(endpoint.host_ifname)
        if endpoint.host_ifname in links:
            self._dataplane.detach_endpoint(links[endpoint.host_ifname])
            await self._netlink.delete_link(endpoint.host_ifname)
        if endpoint.owns_netns and endpoint.netns:
            await self._netlink.delete_netns(facts.netns_name(endpoint))
        self._enforcement.forget(endpoint)
        self._store.delete(endpoint.id)
        del self._endpoints[endpoint.key]
        self._routed.pop(endpoint.key, None)
        self._ending.discard(endpoint.key)
        for address in endpoint.addresses:
            if (pool := self._pools.get(address.version)) is not None:
                pool.release(address)

    def _watch_owner(self, endpoint: Endpoint) -> None:
        if endpoint.owner is not None:
            self._spawn(self._until_owner_ends(endpoint.key, endpoint.owner))

    async def _until_owner_ends(self, key: Key, owner: OwnerProcess) -> None:
        await process.wait_exit(owner.pid, owner.start_time)
        endpoint = self._endpoints.get(key)
        if endpoint is not None and endpoint.owner == owner:
            await self._end(endpoint, "endpoint ended with its process")
