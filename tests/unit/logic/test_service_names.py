"""Names of services and endpoints, by the specification's cases."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from meshnet.logic.service_names import (
    NO_DATA,
    NO_SUCH_NAME,
    Names,
    Record,
    RecordType,
    resolv_conf,
)
from meshnet.logic.services import Resolved, ResolvedPort
from meshnet.model.service import (
    Backend,
    BackendAddress,
    Protocol,
    Service,
    ServicePort,
    ServiceType,
    Sharing,
)

VIP, VIP6 = ip_address("100.64.0.10"), ip_address("fd00:100:64::10")
ONE, TWO = ip_address("10.1.0.5"), ip_address("10.1.0.6")
HTTP = ServicePort(name="http", port=80, protocol=Protocol.TCP, target=8080)


def service(name: str, **changes: Any) -> Resolved:
    values: dict[str, Any] = {"namespace": "shop", "name": name, "ports": (HTTP,), **changes}
    made = Service(**values)
    backends = tuple(
        Backend(at=BackendAddress(a, 8080, Protocol.TCP), port_name="http", cluster="east")
        for a in (ONE, TWO)
    )
    addresses = () if made.headless or made.external_name else (VIP, VIP6)
    port = ResolvedPort(port=HTTP, backends=backends)
    return Resolved(service=made, addresses=addresses, ports=(port,) if made.ports else ())


NAMES = Names(
    services={
        each.service.key: each
        for each in (
            service("web"),
            service("all", sharing=Sharing(is_global=True)),
            service("db", headless=True),
            service(
                "away", type=ServiceType.EXTERNAL_NAME, external_name="db.example.com", ports=()
            ),
        )
    },
    members={("shop", "db"): (("db-0", ONE), ("", TWO))},
    endpoints={("east", "shop", "cart"): (ONE,), ("west", "shop", "cart"): (TWO,)},
    cluster="east",
)


def asked(name: str, kind: str = "A") -> list[Any]:
    answer = NAMES.answer(name, kind)
    assert answer is not None and answer.exists
    return [record.data for record in answer.records]


def test_a_service_has_its_cluster_addresses() -> None:
    assert asked("web.shop.svc.cluster.local") == [VIP]
    assert asked("WEB.shop.svc.Cluster.Local", "AAAA") == [VIP6]
    assert NAMES.answer("web.shop.svc.cluster.local", "MX") == NO_DATA


def test_a_headless_service_has_its_members() -> None:
    assert asked("db.shop.svc.cluster.local") == [ONE, TWO]
    assert asked("db-0.db.shop.svc.cluster.local") == [ONE]
    assert asked("10-1-0-6.db.shop.svc.cluster.local") == [TWO]


def test_ports_are_srv_records_with_the_addresses_beside_them() -> None:
    answer = NAMES.answer("_http._tcp.web.shop.svc.cluster.local", "SRV")
    assert answer is not None
    target = "web.shop.svc.cluster.local"
    assert [record.data for record in answer.records] == [(80, target)]
    assert answer.additional == (
        Record(target, RecordType.A, VIP),
        Record(target, RecordType.AAAA, VIP6),
    )
    assert NAMES.answer("_http._udp.web.shop.svc.cluster.local", "SRV") == NO_SUCH_NAME


def test_ports_of_a_headless_service_are_its_members() -> None:
    assert asked("_http._tcp.db.shop.svc.cluster.local", "SRV") == [
        (8080, "db-0.db.shop.svc.cluster.local"),
        (8080, "10-1-0-6.db.shop.svc.cluster.local"),
    ]


def test_an_external_name_is_an_alias() -> None:
    assert asked("away.shop.svc.cluster.local") == ["db.example.com"]


def test_only_global_services_are_in_the_clusterset() -> None:
    assert asked("all.shop.svc.clusterset.local") == [VIP]
    assert NAMES.answer("web.shop.svc.clusterset.local", "A") == NO_SUCH_NAME


def test_endpoints_have_names() -> None:
    assert asked("cart.shop.endpoint.cluster.local") == [ONE]
    assert asked("cart.shop.west.endpoint.clusterset.local") == [TWO]
    assert NAMES.answer("cart.shop.west.endpoint.cluster.local", "A") == NO_SUCH_NAME


def test_an_address_has_its_services_name() -> None:
    assert asked("10.0.64.100.in-addr.arpa", "PTR") in (
        ["web.shop.svc.cluster.local"],
        ["all.shop.svc.cluster.local"],
    )
    assert NAMES.answer("1.2.0.192.in-addr.arpa", "PTR") is None


def test_the_version_of_the_specification_is_told() -> None:
    assert asked("dns-version.cluster.local", "TXT") == ["1.1.0"]


@pytest.mark.parametrize(
    "name",
    ["nobody.shop.svc.cluster.local", "web.other.svc.cluster.local", "x.cluster.local",
     "a.web.shop.svc.cluster.local", "other.svc.cluster.local"],
)  # fmt: skip
def test_what_is_not_there_is_said_to_be_not_there(name: str) -> None:
    assert NAMES.answer(name, "A") == NO_SUCH_NAME


def test_the_world_is_not_ours() -> None:
    for name in ("example.com", "cluster.local.example.com", "local"):
        assert NAMES.answer(name, "A") is None


def test_an_endpoint_asks_its_node_and_its_namespace_first() -> None:
    assert resolv_conf("shop", [ONE]) == (
        "nameserver 10.1.0.5\n"
        "search shop.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )
