"""Every promise of docs/services.md by the client that it is made for.

web (east-1) asks; pool-1 (east-1), pool-2 (east-2) and pool-w (west-1) answer with their names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab.test_services import active, apply, shown
from tests.support.formed import Mesh, Workload, eventually
from tests.support.sockets import CLIENT

pytestmark = pytest.mark.lab

ANSWERER = str(Path(__file__).parents[1] / "support" / "answerer.py")
POOL = {"pool-1": "east-1", "pool-2": "east-2", "pool-w": "west-1"}
CHECKED = {"pool-1": 8080, "pool-2": 9, "pool-w": 8080}
"""Port `checked` of each: nobody listens on pool-2's."""
GIVEN, EXTERNAL = "100.64.7.7", "192.0.2.77"
PORTS = "[{name: http, port: 80, targetPort: 8080}]"
SERVICES = f"""
apiVersion: v1
kind: Service
metadata: {{name: pool}}
spec:
  selector: {{app: pool}}
  ipFamilyPolicy: PreferDualStack
  ports:
  - {{name: http, port: 80, targetPort: 8080}}
  - {{name: echo, port: 7, targetPort: 5300, protocol: UDP}}
---
apiVersion: v1
kind: Service
metadata: {{name: sticky}}
spec: {{selector: {{app: pool}}, sessionAffinity: ClientIP, ports: {PORTS}}}
---
apiVersion: v1
kind: Service
metadata: {{name: local}}
spec: {{selector: {{app: pool}}, internalTrafficPolicy: Local, ports: {PORTS}}}
---
apiVersion: v1
kind: Service
metadata: {{name: close}}
spec: {{selector: {{app: pool}}, trafficDistribution: PreferSameNode, ports: {PORTS}}}
---
apiVersion: v1
kind: Service
metadata: {{name: given}}
spec: {{selector: {{app: pool}}, clusterIP: {GIVEN}, externalIPs: [{EXTERNAL}], ports: {PORTS}}}
---
apiVersion: v1
kind: Service
metadata: {{name: checked, annotations: {{meshnet.io/health-check: tcp}}}}
spec: {{selector: {{app: pool}}, ports: [{{port: 80, targetPort: checked}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: measure}}
spec:
  selector: {{app: pool, which: pool-2}}
  ipFamilyPolicy: PreferDualStack
  ports: [{{name: tcp, port: 5201}}, {{name: udp, port: 5201, protocol: UDP}}]
"""
EVERYWHERE = "\n---\n".join(
    f"""
apiVersion: v1
kind: Service
metadata:
  name: everywhere-{affinity}
  annotations: {{service.cilium.io/global: "true", service.cilium.io/affinity: {affinity}}}
spec: {{selector: {{app: pool}}, ports: {PORTS}}}
"""
    for affinity in ("none", "local", "remote")
)
NAMES = ("pool", "sticky", "local", "close", "given", "checked", "measure")
AFFINE = ("everywhere-none", "everywhere-local", "everywhere-remote")


def start(mesh: Mesh, node: str, name: str, app: str) -> None:
    labels = ("--label", f"app={app}", "--label", f"which={name}")
    port = ("--port", f"checked={CHECKED.get(name, 8080)}/tcp")
    mesh.run(node, "meshnet", "run", "--name", name, *labels, *port, "--detach", "--",
             sys.executable, ANSWERER, name)  # fmt: skip


def until_answering(mesh: Mesh, client: Workload, servers: Iterable[Workload]) -> None:
    for server in servers:
        asked = f"curl -s -m 1 http://{server.ipv4}:8080/ || true"
        eventually(lambda: mesh.inside(client, asked).split() == [server.name], within_s=20)  # noqa: B023


@pytest.fixture(scope="module")
def pool(mesh: Mesh, workloads: dict[str, Workload]) -> Iterator[dict[str, Workload]]:
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda item: start(mesh, item[1], item[0], "pool"), POOL.items()))
    apply(mesh, "east-1", f"{SERVICES}\n---\n{EVERYWHERE}")
    apply(mesh, "west-1", EVERYWHERE)
    found = {name: mesh.workload(node, name) for name, node in POOL.items()}
    until_answering(mesh, workloads["web"], found.values())
    eventually(lambda: len(active(mesh, "east-1", "pool")) == 4, within_s=20)
    eventually(lambda: len(active(mesh, "east-1", "everywhere-none")) == 6, within_s=20)
    yield found
    mesh.run("east-1", "meshnet", "delete", "service", *NAMES, *AFFINE)
    mesh.run("west-1", "meshnet", "delete", "service", *AFFINE)
    for name, node in POOL.items():
        mesh.stop(node, name)


def addresses(mesh: Mesh, name: str) -> list[str]:
    """Its cluster addresses, IPv4 first."""
    return list(dict.fromkeys(f["address"] for f in shown(mesh, "east-1", name)["frontends"]))


def answers(mesh: Mesh, client: Workload, host: str, times: int = 16) -> list[str]:
    """Who answered, by curl, a connection each."""
    url = f"http://[{host}]/" if ":" in host else f"http://{host}/"
    return mesh.inside(
        client, f"for i in $(seq {times}); do curl -s -m 3 {url}; done; true"
    ).split()


def test_new_connections_are_spread_over_all_backends(
    mesh: Mesh, workloads: dict[str, Workload], pool: dict[str, Workload]
) -> None:
    for address in addresses(mesh, "pool"):
        found = answers(mesh, workloads["web"], address, times=24)
        assert (len(found), set(found)) == (24, {"pool-1", "pool-2"})


def test_affinity_keeps_a_client_at_its_backend(
    mesh: Mesh, workloads: dict[str, Workload], pool: dict[str, Workload]
) -> None:
    (address,) = addresses(mesh, "sticky")
    assert len(set(answers(mesh, workloads["web"], address))) == 1


@pytest.mark.parametrize("name", ["local", "close"])
def test_the_backends_of_the_clients_node_serve_it(
    mesh: Mesh, workloads: dict[str, Workload], pool: dict[str, Workload], name: str
) -> None:
    (address,) = addresses(mesh, name)
    assert set(answers(mesh, workloads["web"], address)) == {"pool-1"}
    assert set(answers(mesh, workloads["api"], address)) == {"pool-2"}


def test_given_and_external_addresses_serve(
    mesh: Mesh, workloads: dict[str, Workload], pool: dict[str, Workload]
) -> None:
    assert addresses(mesh, "given") == [GIVEN, EXTERNAL]
    for address in (GIVEN, EXTERNAL):
        assert len(answers(mesh, workloads["web"], address, times=4)) == 4


def test_a_backend_that_fails_its_check_is_out_and_why_is_shown(
    mesh: Mesh, workloads: dict[str, Workload], pool: dict[str, Workload]
) -> None:
    """By the name of a port, too, which each backend resolves by itself."""
    good = {pool["pool-1"].ipv4, pool["pool-1"].ipv6}
    eventually(lambda: active(mesh, "east-1", "checked") == good, within_s=15)
    (out,) = (b for b in shown(mesh, "east-1", "checked")["backends"]
              if b["address"] == pool["pool-2"].ipv4)  # fmt: skip
    assert (out["state"], out["port"]) == ("unhealthy", 9)
    assert "refused" in out["reason"].lower()
    (address,) = addresses(mesh, "checked")
    assert set(answers(mesh, workloads["web"], address)) == {"pool-1"}


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("everywhere-none", {"pool-1", "pool-2", "pool-w"}),
        ("everywhere-local", {"pool-1", "pool-2"}),
        ("everywhere-remote", {"pool-w"}),
    ],
)
def test_a_global_service_prefers_the_clusters_it_says(
    mesh: Mesh, workloads: dict[str, Workload], pool: dict[str, Workload], name: str, who: set[str]
) -> None:
    (address,) = addresses(mesh, name)
    assert set(answers(mesh, workloads["web"], address, times=40)) == who


def test_iperf3_measures_streams_and_datagrams_through_a_service(
    mesh: Mesh, workloads: dict[str, Workload], pool: dict[str, Workload]
) -> None:
    for address in addresses(mesh, "measure"):
        for words in ("-n 4M", "-u -b 2M -n 50K"):
            said = mesh.inside(workloads["web"], f"iperf3 -J -p 5201 -c {address} {words}")
            end = json.loads(said)["end"]
            assert end.get("sum_received", end.get("sum"))["bytes"] > 0, words


def test_datagrams_are_echoed_and_seem_to_come_from_the_service(
    mesh: Mesh, workloads: dict[str, Workload], pool: dict[str, Workload]
) -> None:
    """By a connected socket and by one that is not: each stays with the backend it has."""
    for address in addresses(mesh, "pool"):
        for kind in ("udp", "connected-udp"):
            argv = (sys.executable, "-c", CLIENT, kind, address, "7", "12")
            found = json.loads(mesh.run("east-1", "meshnet", "exec", "web", "--", *argv))
            assert {(where, port) for where, port, _ in found} == {(address, 7)}
            assert len({name for _, _, name in found}) == 1
            assert len(found) == 12


ONLY_POOL = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: only-pool}
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress: [{toServices: [{k8sService: {serviceName: pool, namespace: default}}]}]
"""


def test_a_policy_that_names_a_service_allows_it_and_no_other(
    mesh: Mesh, workloads: dict[str, Workload], pool: dict[str, Workload]
) -> None:
    """By the service's address: the packets that are judged have a backend's."""
    allowed, denied = addresses(mesh, "pool"), addresses(mesh, "everywhere-remote")
    delete = ("meshnet", "delete", "--wait", "cnp", "only-pool")
    mesh.run("east-1", "sh", "-c", f"meshnet apply --wait -f - <<'END'\n{ONLY_POOL}\nEND")
    try:
        for address in allowed:
            assert set(answers(mesh, workloads["web"], address)) == {"pool-1", "pool-2"}
        for address in denied:
            assert answers(mesh, workloads["web"], address, times=1) == []
    finally:
        mesh.run("east-1", *delete)
    assert answers(mesh, workloads["web"], denied[0], times=1) == ["pool-w"]


HOSTS = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: {ports}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: {slice_ports}
endpoints: {endpoints}
"""


def test_dig_asks_a_name_server_behind_a_service(
    mesh: Mesh, workloads: dict[str, Workload], pool: dict[str, Workload]
) -> None:
    """The node's own resolver as a host of an EndpointSlice: no endpoint, no selector."""
    web = workloads["web"]
    conf = mesh.inside(web, "cat /etc/resolv.conf").splitlines()
    server = next(line.split()[1] for line in conf if line.startswith("nameserver"))
    ports = "[{name: udp, port: 53, protocol: UDP}, {name: tcp, port: 53}]"
    endpoints = f"[{{addresses: [{server}]}}]"
    apply(mesh, "east-1", HOSTS.format(name="dns", ports=ports, slice_ports=ports,
                                       endpoints=endpoints))  # fmt: skip
    try:
        eventually(lambda: active(mesh, "east-1", "dns") == {server}, within_s=10)
        (address,) = addresses(mesh, "dns")
        for more in ("", "+tcp"):
            asked = (
                f"dig @{address} +short +time=2 +tries=1 {more} pool.default.svc.cluster.local A"
            )
            assert mesh.inside(web, asked).split() == addresses(mesh, "pool")[:1]
    finally:
        mesh.run("east-1", "meshnet", "delete", "service", "dns")
        mesh.run("east-1", "meshnet", "delete", "endpointslice", "dns-1")
