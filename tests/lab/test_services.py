"""Services over real hosts: real clients, real servers, two clusters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.formed import Mesh, Workload, eventually

pytestmark = pytest.mark.lab

SERVICE = """
apiVersion: v1
kind: Service
metadata:
  name: {name}
  annotations: {annotations}
spec:
  selector: {{app: {app}}}
  ipFamilyPolicy: PreferDualStack
  ports: [{{name: http, port: 80, targetPort: 8080}}]
"""


def apply(mesh: Mesh, node: str, text: str) -> str:
    return mesh.run(node, "sh", "-c", f"cat <<'END' | meshnet apply -f -\n{text}\nEND")


def service(name: str, app: str, **annotations: str) -> str:
    given = {key.replace("__", "/").replace("_", "."): value for key, value in annotations.items()}
    return SERVICE.format(name=name, app=app, annotations=json.dumps(given))


def names(mesh: Mesh, node: str) -> set[str]:
    return {row["name"] for row in mesh.json(node, "service", "list")}


def shown(mesh: Mesh, node: str, name: str) -> Any:
    return mesh.json(node, "service", "show", name)


def active(mesh: Mesh, node: str, name: str) -> set[str]:
    """Addresses of the backends that take clients."""
    rows = shown(mesh, node, name)["backends"]
    return {row["address"] for row in rows if row["state"] == "active"}


def fetch(mesh: Mesh, client: Workload, address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return mesh.inside(client, f"curl -s -m 3 -o /dev/null -w '%{{http_code}}' http://{host}/")


@pytest.fixture(scope="module")
def plain(mesh: Mesh, workloads: dict[str, Workload]) -> Iterator[Any]:
    """A service of cluster east with one backend, asked for on a node without it."""
    assert "service default/api created" in apply(mesh, "east-2", service("api", "api"))
    eventually(lambda: len(active(mesh, "east-1", "api")) == 2, within_s=10)
    yield shown(mesh, "east-1", "api")
    mesh.run("east-1", "meshnet", "delete", "service", "api")
    assert all(row["name"] != "api" for row in mesh.json("east-1", "service", "list"))


def test_an_endpoint_reaches_a_service_by_its_addresses(
    mesh: Mesh, workloads: dict[str, Workload], plain: Any
) -> None:
    addresses = [frontend["address"] for frontend in plain["frontends"]]
    assert len(addresses) == 2
    for name in ("web", "api"):  # on another node, and from the backend itself
        for address in addresses:
            assert fetch(mesh, workloads[name], address) == "200"


def test_the_node_itself_reaches_it_too(mesh: Mesh, plain: Any) -> None:
    (v4,) = (f["address"] for f in plain["frontends"] if ":" not in f["address"])
    assert "200" in mesh.run("east-1", "curl", "-s", "-m", "3", "-o", "/dev/null", "-w",
                             "%{http_code}", f"http://{v4}/")  # fmt: skip


def test_hits_are_counted_by_backend(
    mesh: Mesh, workloads: dict[str, Workload], plain: Any
) -> None:
    (v4,) = (f["address"] for f in plain["frontends"] if ":" not in f["address"])
    before = {row["address"]: row["hits"] for row in shown(mesh, "east-1", "api")["backends"]}
    fetch(mesh, workloads["web"], v4)
    after = {row["address"]: row["hits"] for row in shown(mesh, "east-1", "api")["backends"]}
    assert after[workloads["api"].ipv4] == before[workloads["api"].ipv4] + 1


def test_service_addresses_mean_nothing_in_another_cluster(
    mesh: Mesh, workloads: dict[str, Workload], plain: Any
) -> None:
    (v4,) = (f["address"] for f in plain["frontends"] if ":" not in f["address"])
    assert fetch_fails(mesh, workloads["db"], v4)


def fetch_fails(mesh: Mesh, client: Workload, address: str) -> bool:
    return mesh.inside(client, f"curl -s -m 2 http://{address}/ || echo failed").endswith(
        "failed\n"
    )


def test_a_service_without_backends_refuses_at_once(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    apply(mesh, "east-1", service("empty", "nobody"))
    try:
        eventually(lambda: "empty" in names(mesh, "east-1"), within_s=10)
        (v4,) = (f["address"] for f in shown(mesh, "east-1", "empty")["frontends"]
                 if ":" not in f["address"])  # fmt: skip
        said = mesh.inside(workloads["web"], f"curl -sS -m 3 http://{v4}/ 2>&1 || true")
        assert "Couldn't connect" in said  # curl's word for ECONNREFUSED; a timeout has another
    finally:
        mesh.run("east-1", "meshnet", "delete", "service", "empty")


def test_a_global_service_has_backends_in_both_clusters(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    manifest = service("shared", "cache", service_cilium_io__global="true")
    for node in ("east-1", "west-1"):
        apply(mesh, node, manifest)
    try:
        cache = workloads["cache"]
        eventually(lambda: active(mesh, "east-2", "shared") == {cache.ipv4, cache.ipv6},
                   within_s=15)  # fmt: skip
        for address in (f["address"] for f in shown(mesh, "east-2", "shared")["frontends"]):
            assert fetch(mesh, workloads["api"], address) == "200"
        (told,) = mesh.etcd("west-1", "get", "cilium/state/services/v1/west/default/shared").items()
        value = json.loads(told[1])
        assert value["backends"][cache.ipv4] == {"http": {"Protocol": "TCP", "Port": 8080}}
        assert (value["shared"], value["clusterID"]) == (True, 2)
    finally:
        for node in ("east-1", "west-1"):
            mesh.run(node, "meshnet", "delete", "service", "shared")


HEAD = "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: "
HEAVIER = HEAD.replace("bad", "bad, annotations: {meshnet.io/cluster-weights: east=-1}")
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: bad-1, labels: {kubernetes.io/service-name: bad}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [100.64.0.9]}]
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "{clusterIP: 10.0.0.1, ports: [{port: 80}]}",
         "outside the service CIDRs 100.64.0.0/16"),
        (HEAD + "{ports: [{port: 80, protocol: SCTP}]}", "must be one of TCP, UDP"),
        (HEAD + "{ports: [{name: a, port: 80}, {name: b, port: 80}]}", "has port 80/TCP twice"),
        (HEAD + "{externalIPs: [100.64.0.1], ports: [{port: 80}]}",
         "is a service's own (100.64.0.0/16)"),
        (HEAD + "{externalIPs: [10.1.0.9], ports: [{port: 80}]}",
         "is an endpoint's (10.1.0.0/16)"),
        (HEAVIER + "{ports: [{port: 80}]}", "weights of 0 to 1000, not 'east=-1'"),
        (SLICE, "backend 100.64.0.9 is in the service CIDR 100.64.0.0/16"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_not_stored(mesh: Mesh, text: str, said: str) -> None:
    done = mesh["east-1"].exec(["sh", "-c", f"meshnet apply -f - <<'END'\n{text}\nEND"])
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "bad" not in names(mesh, "east-1")
    assert mesh["east-1"].exec(["meshnet", "get", "endpointslice", "bad-1"]).returncode == 4
