"""Services and EndpointSlices, as Kubernetes' users write them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
import yaml

from meshnet.errors import ManifestRefused
from meshnet.manifests.kinds import meaning, read_manifest
from meshnet.model.service import (
    Affinity,
    Check,
    EndpointSlice,
    Protocol,
    Service,
    ServicePort,
    ServiceType,
    SliceEndpoint,
)


def service(spec: str, annotations: dict[str, str] | None = None) -> Service:
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "annotations": annotations or {}},
        "spec": yaml.safe_load(spec),
    }
    found: Service = meaning(read_manifest(document))
    return found


def faults(spec: str, annotations: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ManifestRefused) as refused:
        service(spec, annotations)
    return [str(fault) for fault in refused.value.faults]


def slice_of(body: str) -> EndpointSlice:
    found: EndpointSlice = meaning(read_manifest(yaml.safe_load(body)))
    return found


def test_the_service_of_the_kubernetes_documentation() -> None:
    """https://kubernetes.io/docs/concepts/services-networking/service/"""
    found = service("""
selector: {app.kubernetes.io/name: MyApp}
ports: [{protocol: TCP, port: 80, targetPort: 9376}]
""")
    assert found == Service(
        namespace="default",
        name="web",
        selector={"app.kubernetes.io/name": "MyApp"},
        ports=(ServicePort(name="", port=80, protocol=Protocol.TCP, target=9376),),
    )


def test_ports_have_names_protocols_and_named_targets() -> None:
    found = service("""
ports:
  - {name: http, port: 80, targetPort: http-web, appProtocol: http}
  - {name: dns, port: 53, protocol: UDP, nodePort: 30053}
  - {name: dns-tcp, port: 53}
""")
    assert [(p.name, p.port, p.protocol, p.target) for p in found.ports] == [
        ("http", 80, Protocol.TCP, "http-web"),
        ("dns", 53, Protocol.UDP, 53),
        ("dns-tcp", 53, Protocol.TCP, 53),
    ]


@pytest.mark.parametrize(
    ("spec", "families", "addresses"),
    [
        ("{ports: [{port: 1}]}", (4,), ()),
        ("{ports: [{port: 1}], ipFamilies: [IPv6]}", (6,), ()),
        ("{ports: [{port: 1}], ipFamilyPolicy: PreferDualStack}", (4, 6), ()),
        (
            "{ports: [{port: 1}], ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4]}",
            (6, 4),
            (),
        ),
        ("{ports: [{port: 1}], clusterIP: 100.64.7.7}", (4,), ("100.64.7.7",)),
        (
            "{ports: [{port: 1}], clusterIP: 'fd00:100:64::7', ipFamilyPolicy: PreferDualStack}",
            (6, 4),
            ("fd00:100:64::7",),
        ),
    ],
)
def test_families_and_addresses(spec: str, families: Any, addresses: Any) -> None:
    found = service(spec)
    assert found.families == families
    assert found.cluster_ips == tuple(map(ip_address, addresses))


def test_a_headless_service_needs_no_port() -> None:
    found = service("{clusterIP: None, selector: {app: db}}")
    assert found.headless and found.ports == ()


def test_an_external_name() -> None:
    found = service("{type: ExternalName, externalName: db.example.com.}")
    assert (found.type, found.external_name) == (ServiceType.EXTERNAL_NAME, "db.example.com")


def test_affinity_and_policies() -> None:
    found = service("""
ports: [{port: 1}]
sessionAffinity: ClientIP
internalTrafficPolicy: Local
publishNotReadyAddresses: true
trafficDistribution: PreferClose
""")
    assert found.affinity_s == 10_800
    assert found.internal_local and found.publish_not_ready and found.prefer_close
    shorter = service("""
ports: [{port: 1}]
sessionAffinity: ClientIP
sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
""")
    assert shorter.affinity_s == 60


def test_services_written_for_the_outside_apply_unchanged() -> None:
    found = service("""
type: LoadBalancer
externalTrafficPolicy: Local
allocateLoadBalancerNodePorts: false
loadBalancerSourceRanges: [192.0.2.0/24]
ports: [{port: 443, nodePort: 30443}]
externalIPs: [192.0.2.7]
""")
    assert found.type is ServiceType.LOAD_BALANCER
    assert found.external_ips == (ip_address("192.0.2.7"),)


@pytest.mark.parametrize("prefix", ["service.cilium.io/", "io.cilium/"])
def test_a_global_service_by_ciliums_annotations(prefix: str) -> None:
    old = prefix == "io.cilium/"
    found = service(
        "{ports: [{port: 1}]}",
        {
            f"{prefix}{'global-service' if old else 'global'}": "true",
            f"{prefix}{'shared-service' if old else 'shared'}": "false",
            f"{prefix}{'service-affinity' if old else 'affinity'}": "none",
        },
    ).sharing
    assert (found.is_global, found.shared, found.affinity) == (True, False, Affinity.NONE)


def test_what_cilium_lacks_is_by_annotation() -> None:
    found = service(
        "{ports: [{port: 1}]}",
        {
            "service.cilium.io/global": "true",
            "meshnet.io/cluster-preference": "east, west",
            "meshnet.io/cluster-weights": "east=3,west=0",
            "meshnet.io/min-healthy": "50%",
            "meshnet.io/max-shift": "10%",
            "meshnet.io/health-check": "http:/healthz",
        },
    )
    assert found.sharing.preference == ("east", "west")
    assert found.sharing.weights == {"east": 3, "west": 0}
    assert (found.sharing.min_healthy_percent, found.sharing.max_shift_percent) == (50, 10)
    assert found.check == Check(path="/healthz")
    assert service("{ports: [{port: 1}]}", {"meshnet.io/health-check": "tcp"}).check == Check()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{}", "spec: field 'ports' is missing"),
        ("{ports: []}", "spec.ports: must name at least one port"),
        ("{ports: [{port: 0}]}", "spec.ports[0].port: must be 1 to 65535, not 0"),
        ("{ports: [{port: 1}, {port: 2}]}", "spec.ports[0]: field 'name' is missing"),
        (
            "{ports: [{port: 1, protocol: SCTP}]}",
            "spec.ports[0].protocol: must be one of TCP, UDP, not 'SCTP'",
        ),
        (
            "{ports: [{name: a, port: 1}, {name: b, port: 1}]}",
            "spec.ports[1]: has port 1/TCP twice: each port and each name once",
        ),
        (
            "{ports: [{port: 1}], clusterIP: 10.0.0.300}",
            "spec.clusterIP: must be an IP address, not '10.0.0.300'",
        ),
        (
            "{ports: [{port: 1}], sessionAffinity: Cookie}",
            "spec.sessionAffinity: must be one of None, ClientIP, not 'Cookie'",
        ),
        (
            "{ports: [{port: 1}], externalName: a.b}",
            "spec.externalName: needs type ExternalName, not 'a.b'",
        ),
        ("{ports: [{port: 1}], colour: red}", "spec.colour: unknown field"),
        (
            "{ports: [{port: 1}], type: Ingress}",
            "spec.type: must be one of ClusterIP, NodePort, LoadBalancer, ExternalName, "
            "not 'Ingress'",
        ),
    ],
)
def test_what_is_wrong_is_named(spec: str, said: str) -> None:
    assert said in faults(spec)


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        ("meshnet.io/cluster-weights", "east=-1", "must be CLUSTER=WEIGHT,..."),
        ("meshnet.io/cluster-weights", "east=1001", "weights of 0 to 1000"),
        ("meshnet.io/cluster-preference", "east,east", "each once"),
        ("meshnet.io/min-healthy", "0%", "must be 1% to 100%"),
        ("meshnet.io/max-shift", "fast", "must be 1% to 100%"),
        ("meshnet.io/health-check", "icmp", "must be tcp or http:/PATH"),
        ("service.cilium.io/affinity", "near", "must be none, local or remote"),
    ],
)
def test_a_wrong_annotation_is_named_with_its_value(annotation: str, value: str, said: str) -> None:
    (fault,) = faults("{ports: [{port: 1}]}", {annotation: value})
    assert fault.startswith(f"metadata.annotations[{annotation}]: ")
    assert said in fault and repr(value) in fault


SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 5432}]
endpoints: %s
"""


def test_an_endpoint_slice() -> None:
    found = slice_of(
        SLICE
        % """
  - {addresses: [192.0.2.8], hostname: a, nodeName: east-1}
  - {addresses: [192.0.2.9], conditions: {ready: false, serving: true, terminating: true}}
"""
    )
    assert found.service_key == ("default", "db")
    assert found.endpoints == (
        SliceEndpoint(addresses=(ip_address("192.0.2.8"),), hostname="a", node="east-1"),
        SliceEndpoint(addresses=(ip_address("192.0.2.9"),), ready=False, terminating=True),
    )


@pytest.mark.parametrize(
    ("endpoints", "said"),
    [
        ("[{addresses: [127.0.0.1]}]", "can be nobody's backend"),
        ("[{addresses: ['fd00::1']}]", "must be an IPv4 address, as addressType says"),
        ("[{addresses: []}]", "must name at least one address"),
        ("[{addresses: [x]}]", "must be an IP address"),
        ("[]\nports: [{port: 1, protocol: SCTP}]", "must be one of TCP, UDP"),
        ("[]\nports: [{port: 0}]", "must be 1 to 65535"),
    ],
)
def test_a_slice_that_cannot_be_is_refused(endpoints: str, said: str) -> None:
    with pytest.raises(ManifestRefused) as refused:
        slice_of((SLICE % endpoints).replace("ports: [{name: sql, port: 5432}]\n", ""))
    assert said in str(refused.value.faults[0])


def test_a_slice_names_its_service() -> None:
    with pytest.raises(ManifestRefused, match=r"label kubernetes.io/service-name is missing"):
        slice_of((SLICE % "[]").replace("kubernetes.io/service-name", "app"))
