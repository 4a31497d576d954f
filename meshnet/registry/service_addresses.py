"""Cluster addresses of services: create-only claims, as every allocation.

An address is drawn at random from the cluster's service CIDRs, never the lowest free one:
two agents that allocate at once seldom want the same, and a deleted service's address is
not given to the next one while clients may still remember it.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from meshnet.errors import AlreadyExists, Conflict, PoolExhausted, Refused
from meshnet.kvstore.api import KV, Created, Delete, Put, Unchanged
from meshnet.model.addressing import Address, Prefix, contains
from meshnet.model.service import Service, ServiceType
from meshnet.registry import schema
from meshnet.registry.service_codec import decode_service_address, encode_service_address

ATTEMPTS = 32
Key = tuple[str, str]


class ServiceAddresses:
    """Args: `pools` are the cluster's service CIDRs."""

    def __init__(self, kv: KV, pools: Sequence[Prefix]) -> None:
        self._kv = kv
        self._pools = pools

    async def settle(self, service: Service) -> tuple[Address, ...]:
        """Give a service the addresses that its manifest says, and take away all others.

        Raises:
            Refused: an address that was asked for lies outside the service CIDRs, or the
                cluster has no service CIDR of that family.
            AlreadyExists: it is another service's.
            PoolExhausted: no address is free.
        """
        taken = await self._taken()
        held = [address for address, owner in taken.items() if owner == service.key]
        wanted = [self._asked(service, address, taken) for address in service.cluster_ips]
        for address in wanted:
            if address not in held and not await self._claim(service.key, address):
                raise Conflict(f"service address {address} was just taken: try again")
        if not (service.headless or service.type is ServiceType.EXTERNAL_NAME):
            for version in service.families:
                if not any(address.version == version for address in wanted):
                    kept = next((a for a in held if a.version == version), None)
                    wanted.append(kept or await self._draw(service.key, version, taken))
        await self._free([address for address in held if address not in wanted])
        return tuple(sorted(wanted, key=lambda a: service.families.index(a.version)))

    async def release(self, key: Key) -> None:
        """Whatever that service had is free again."""
        taken = await self._taken()
        await self._free([address for address, owner in taken.items() if owner == key])

    async def _taken(self) -> dict[Address, Key]:
        pairs = (await self._kv.list(schema.SERVICE_ADDRESSES)).pairs
        return dict(decode_service_address(pair.key, pair.value) for pair in pairs)

    def _asked(self, service: Service, address: Address, taken: dict[Address, Key]) -> Address:
        what = f"Service {service.namespace}/{service.name}"
        if not any(contains(pool, address) for pool in self._pools):
            pools = ", ".join(map(str, self._pools))
            raise Refused(
                f"{what}: cluster address {address} is outside the service CIDRs {pools}: leave "
                "clusterIP out to get a free one"
            )
        owner = taken.get(address, service.key)
        if owner != service.key:
            raise AlreadyExists(
                f"{what}: cluster address {address} is service {'/'.join(owner)}'s: leave "
                "clusterIP out to get a free one"
            )
        return address

    async def _draw(self, key: Key, version: int, taken: Collection[Address]) -> Address:
        """A free address, claimed."""
        pool = next((pool for pool in self._pools if pool.version == version), None)
        if pool is None:
            raise Refused(
                f"Service {'/'.join(key)}: the cluster has no IPv{version} service CIDR: "
                f"say ipFamilies: [IPv{10 - version}]"
            )
        first, last = 1, pool.num_addresses - (2 if version == 4 else 1)
        for _ in range(ATTEMPTS):
            address = pool[random.randint(first, last)]
            if address not in taken and await self._claim(key, address):
                return address
        # nearly full: look at every one, as far as the claims there are can have filled it
        for place in range(first, min(last, first + len(taken)) + 1):
            if pool[place] not in taken and await self._claim(key, pool[place]):
                return pool[place]
        raise PoolExhausted(f"service CIDR {pool} has no free address: delete services")

    async def _claim(self, key: Key, address: Address) -> bool:
        path = schema.service_address(address)
        put = Put(path, encode_service_address(*key))
        return (await self._kv.txn((Created(path),), (put,))).succeeded

    async def _free(self, addresses: Collection[Address]) -> None:
        for address in addresses:
            path = schema.service_address(address)
            if (pair := await self._kv.get(path)) is not None:
                await self._kv.txn((Unchanged(path, pair.mod_revision),), (Delete(path),))
