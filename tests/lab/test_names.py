"""Names of services and endpoints, asked by real clients: libc, dig, curl."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.test_services import apply, names
from tests.support.formed import Mesh, Workload, eventually

pytestmark = pytest.mark.lab

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: front, annotations: {service.cilium.io/global: "true"}}
spec:
  selector: {app: api}
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: members}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: db.example.com}
"""


@pytest.fixture(scope="module")
def client(mesh: Mesh, workloads: dict[str, Workload]) -> Iterator[Workload]:
    """An endpoint of cluster east, which has these services."""
    apply(mesh, "east-1", SERVICES)
    web = workloads["web"]
    eventually(lambda: {"front", "members", "elsewhere"} <= names(mesh, "east-1"), within_s=10)
    eventually(lambda: dig(mesh, web, "members.default.svc.cluster.local"), within_s=10)
    yield web
    mesh.run("east-1", "meshnet", "delete", "service", "front", "members", "elsewhere")


def dig(mesh: Mesh, client: Workload, *words: str) -> list[str]:
    return mesh.inside(client, f"dig +short +time=2 +tries=1 {' '.join(words)}").split()


def test_a_service_is_found_by_its_short_name_and_answers(mesh: Mesh, client: Workload) -> None:
    """As an application does it: libc's resolver, the search list, a connection."""
    for name in ("front", "front.default", "front.default.svc.cluster.local"):
        said = mesh.inside(client, f"curl -s -m 5 -o /dev/null -w '%{{http_code}}' http://{name}/")
        assert said == "200", name


def test_the_names_of_the_clusterset_are_those_of_global_services(
    mesh: Mesh, client: Workload
) -> None:
    ours = dig(mesh, client, "front.default.svc.cluster.local")
    assert dig(mesh, client, "front.default.svc.clusterset.local") == ours != []
    assert dig(mesh, client, "members.default.svc.clusterset.local") == []


def test_a_headless_service_has_its_members(mesh: Mesh, client: Workload) -> None:
    assert dig(mesh, client, "members.default.svc.cluster.local", "A") == [client.ipv4]
    assert dig(mesh, client, "members.default.svc.cluster.local", "AAAA") == [client.ipv6]
    assert dig(mesh, client, "web.members.default.svc.cluster.local") == [client.ipv4]


def test_ports_are_srv_records(mesh: Mesh, client: Workload) -> None:
    found = dig(mesh, client, "_http._tcp.front.default.svc.cluster.local", "SRV")
    assert found[2:] == ["80", "front.default.svc.cluster.local."]


def test_an_external_name_is_an_alias(mesh: Mesh, client: Workload) -> None:
    found = dig(mesh, client, "elsewhere.default.svc.cluster.local", "CNAME")
    assert found == ["db.example.com."]


def test_endpoints_of_every_cluster_have_names(
    mesh: Mesh, client: Workload, workloads: dict[str, Workload]
) -> None:
    db = workloads["db"]
    assert dig(mesh, client, "db.default.west.endpoint.clusterset.local") == [db.ipv4]
    assert dig(mesh, client, "api.default.endpoint.cluster.local") == [workloads["api"].ipv4]


def test_answers_come_by_tcp_and_over_ipv6_too(mesh: Mesh, client: Workload) -> None:
    conf = mesh.inside(client, "cat /etc/resolv.conf").splitlines()
    servers = [line.split()[1] for line in conf if line.startswith("nameserver")]
    assert [":" in server for server in servers] == [False, True]
    assert "search default.svc.cluster.local svc.cluster.local cluster.local" in conf
    wanted = dig(mesh, client, "front.default.svc.cluster.local")
    for server in servers:
        for more in ("", "+tcp"):
            assert (
                dig(mesh, client, f"@{server}", more, "front.default.svc.cluster.local") == wanted
            )


def test_a_name_that_is_not_there_is_told_at_once(mesh: Mesh, client: Workload) -> None:
    said = mesh.inside(client, "dig +time=2 +tries=1 nobody.default.svc.cluster.local")
    assert "status: NXDOMAIN" in said


def test_the_machines_own_resolv_conf_is_untouched(mesh: Mesh, client: Workload) -> None:
    assert "cluster.local" not in mesh.run("east-1", "cat", "/etc/resolv.conf")
