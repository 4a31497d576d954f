"""What may be applied as a Service or an EndpointSlice beside those that are there."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
import yaml

from meshnet.agent.manifests import Manifests
from meshnet.agent.service_admission import ServiceAdmission, SliceAdmission
from meshnet.errors import AlreadyExists, Refused
from meshnet.kvstore.memory import MemoryKV
from meshnet.manifests.kinds import read_manifest
from meshnet.model.manifest import ManifestKey
from meshnet.registry import schema
from meshnet.registry.service_addresses import ServiceAddresses

TAKEN = {ip_network("100.64.0.0/16"): "a service's own", ip_network("10.1.0.0/16"): "an endpoint's"}
POOLS = (ip_network("100.64.0.0/16"), ip_network("fd00:100:64::/112"))


@pytest.fixture
def kv() -> MemoryKV:
    return MemoryKV()


@pytest.fixture
def manifests(kv: MemoryKV) -> Manifests:
    addresses = ServiceAddresses(kv, POOLS)
    return Manifests(
        kv, {"Service": ServiceAdmission(addresses, TAKEN), "EndpointSlice": SliceAdmission(POOLS)}
    )


def service(name: str, spec: str = "{ports: [{port: 80}]}") -> Any:
    return read_manifest(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
         "spec": yaml.safe_load(spec)}
    )  # fmt: skip


def hosts(*addresses: str) -> Any:
    return read_manifest(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]} for address in addresses],
        }
    )


async def held(kv: MemoryKV) -> int:
    return len((await kv.list(schema.SERVICE_ADDRESSES)).pairs)


async def test_a_service_has_its_address_from_apply_to_delete(
    kv: MemoryKV, manifests: Manifests
) -> None:
    await manifests.apply([service("web")])
    assert await held(kv) == 1
    await manifests.apply([service("web")])
    assert await held(kv) == 1
    await manifests.delete([ManifestKey("Service", "default", "web")])
    assert await held(kv) == 0


async def test_an_address_that_is_anothers_stores_nothing(
    kv: MemoryKV, manifests: Manifests
) -> None:
    spec = "{clusterIP: 100.64.0.9, ports: [{port: 80}]}"
    await manifests.apply([service("web", spec)])
    with pytest.raises(AlreadyExists, match=r"100\.64\.0\.9 is service default/web's"):
        await manifests.apply([service("api", spec)])
    assert [each.key.name for each in await manifests.find("service")] == ["web"]


async def test_one_external_address_and_port_is_one_services(manifests: Manifests) -> None:
    await manifests.apply([service("web", "{externalIPs: [192.0.2.7], ports: [{port: 80}]}")])
    await manifests.apply([service("api", "{externalIPs: [192.0.2.7], ports: [{port: 81}]}")])
    with pytest.raises(Refused, match=r"192\.0\.2\.7 port 80/TCP is service default/web's"):
        await manifests.apply([service("db", "{externalIPs: [192.0.2.7], ports: [{port: 80}]}")])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("100.64.0.9", r"100\.64\.0\.9 is a service's own \(100\.64\.0\.0/16\)"),
        ("10.1.0.9", r"10\.1\.0\.9 is an endpoint's \(10\.1\.0\.0/16\)"),
    ],
)
async def test_an_external_address_takes_nobodys_traffic_away(
    kv: MemoryKV, manifests: Manifests, address: str, said: str
) -> None:
    spec = f"{{externalIPs: [192.0.2.7, {address}], ports: [{{port: 80}}]}}"
    with pytest.raises(Refused, match=f"Service default/web: external address {said}"):
        await manifests.apply([service("web", spec)])
    assert await held(kv) == 0, "nothing is claimed for what is refused"


async def test_a_backend_is_no_services_address(manifests: Manifests) -> None:
    with pytest.raises(Refused, match=r"backend 100\.64\.0\.9 is in the service CIDR"):
        await manifests.apply([hosts("100.64.0.9")])
    await manifests.apply([hosts("192.0.2.7")])
    with pytest.raises(Refused, match="a service cannot answer for itself"):
        await manifests.apply([service("web", "{externalIPs: [192.0.2.7], ports: [{port: 80}]}")])
    await manifests.apply([service("api", "{externalIPs: [192.0.2.8], ports: [{port: 80}]}")])
    with pytest.raises(Refused, match="a service cannot answer for itself"):
        await manifests.apply([hosts("192.0.2.8")])
