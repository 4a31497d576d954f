"""Cluster addresses: asked for or drawn, one service's each, free again afterwards."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from meshnet.errors import AlreadyExists, PoolExhausted, Refused
from meshnet.kvstore.memory import MemoryKV
from meshnet.model.service import Service, ServiceType
from meshnet.registry.service_addresses import ServiceAddresses

POOLS = (ip_network("100.64.0.0/16"), ip_network("fd00:100:64::/112"))


def service(name: str = "web", **changes: Any) -> Service:
    return Service(namespace="default", name=name, **changes)


@pytest.fixture
def addresses() -> ServiceAddresses:
    return ServiceAddresses(MemoryKV(), POOLS)


async def test_an_address_of_each_family_is_drawn_and_kept(addresses: ServiceAddresses) -> None:
    first = await addresses.settle(service(families=(6, 4)))
    assert [address.version for address in first] == [6, 4]
    assert all(any(address in pool for pool in POOLS) for address in first)
    assert await addresses.settle(service(families=(6, 4))) == first


async def test_one_that_was_asked_for_is_given(addresses: ServiceAddresses) -> None:
    wanted = ip_address("100.64.7.7")
    assert await addresses.settle(service(cluster_ips=(wanted,))) == (wanted,)


async def test_what_the_manifest_says_no_more_is_free_again(addresses: ServiceAddresses) -> None:
    old, new = ip_address("100.64.7.7"), ip_address("100.64.7.8")
    await addresses.settle(service(cluster_ips=(old,)))
    assert await addresses.settle(service(cluster_ips=(new,))) == (new,)
    assert await addresses.settle(service("api", cluster_ips=(old,))) == (old,)
    await addresses.release(("default", "web"))
    assert await addresses.settle(service("db", cluster_ips=(new,))) == (new,)


@pytest.mark.parametrize("changes", [{"headless": True}, {"type": ServiceType.EXTERNAL_NAME}])
async def test_a_service_without_an_address_gives_its_own_back(
    addresses: ServiceAddresses, changes: dict[str, Any]
) -> None:
    await addresses.settle(service())
    assert await addresses.settle(service(**changes)) == ()


async def test_an_address_is_one_services(addresses: ServiceAddresses) -> None:
    wanted = ip_address("100.64.7.7")
    await addresses.settle(service(cluster_ips=(wanted,)))
    with pytest.raises(AlreadyExists, match=r"100\.64\.7\.7 is service default/web's"):
        await addresses.settle(service("api", cluster_ips=(wanted,)))


async def test_an_address_outside_is_refused(addresses: ServiceAddresses) -> None:
    with pytest.raises(Refused, match=r"10\.0\.0\.1 is outside the service CIDRs 100\.64\.0\.0/16"):
        await addresses.settle(service(cluster_ips=(ip_address("10.0.0.1"),)))


async def test_a_family_the_cluster_lacks_is_refused() -> None:
    only_v4 = ServiceAddresses(MemoryKV(), POOLS[:1])
    with pytest.raises(Refused, match="no IPv6 service CIDR"):
        await only_v4.settle(service(families=(6,)))


async def test_many_at_once_share_none_and_the_last_is_told() -> None:
    small = ServiceAddresses(MemoryKV(), (ip_network("100.64.0.0/28"),))
    given = await asyncio.gather(*(small.settle(service(f"s{n}")) for n in range(14)))
    assert len(set(given)) == 14
    with pytest.raises(PoolExhausted, match=r"100\.64\.0\.0/28 has no free address"):
        await small.settle(service("one-more"))
