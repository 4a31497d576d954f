"""What a manifest may not say: every fault at once, each by its path and its value."""

from __future__ import annotations

import pytest
import yaml

from meshnet.errors import ManifestRefused
from meshnet.manifests.kinds import read_manifest
from meshnet.manifests.reader import Fault

CNP = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: shop}
spec:
  endpointSelector: {}
  """
NP = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec:
  podSelector: {}
  """


def faults(text: str) -> list[Fault]:
    with pytest.raises(ManifestRefused) as refused:
        read_manifest(yaml.safe_load(text))
    found = refused.value.faults
    assert all(isinstance(fault, Fault) for fault in found)
    return list(found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ("ingress: [{fromRequires: [{}]}]", "spec.ingress[0].fromRequires"),
        ("egress: [{toRequires: [{}]}]", "spec.egress[0].toRequires"),
        ("egress: [{toFQDNs: [{matchName: a.example}]}]", "spec.egress[0].toFQDNs"),
        ("egress: [{toNodes: [{}]}]", "spec.egress[0].toNodes"),
        ("ingress: [{fromNodes: [{}]}]", "spec.ingress[0].fromNodes"),
        ("ingress: [{fromGroups: [{}]}]", "spec.ingress[0].fromGroups"),
        ("egress: [{toGroups: [{}]}]", "spec.egress[0].toGroups"),
        ("ingress: [{authentication: {mode: required}}]", "spec.ingress[0].authentication"),
        ("nodeSelector: {}\n  ingress: [{}]", "spec.nodeSelector"),
        ("ingress: [{toPorts: [{ports: [{port: '80'}], rules: {http: [{}]}}]}]",
         "spec.ingress[0].toPorts[0].rules"),
        ("egress: [{toPorts: [{ports: [{port: '443'}], serverNames: [a]}]}]",
         "spec.egress[0].toPorts[0].serverNames"),
        ("egress: [{toPorts: [{ports: [{port: '443'}], terminatingTLS: {}}]}]",
         "spec.egress[0].toPorts[0].terminatingTLS"),
        ("egress: [{toPorts: [{ports: [{port: '0', protocol: VRRP}]}]}]",
         "spec.egress[0].toPorts[0].ports[0].protocol"),
    ],
)  # fmt: skip
def test_what_is_not_enforced_is_refused_by_name(body: str, path: str) -> None:
    (fault,) = faults(CNP + body)
    assert fault.path == path
    assert "not enforced by meshnet" in fault.message


def test_kube_apiserver_is_refused_with_a_reason() -> None:
    (fault,) = faults(CNP + "egress: [{toEntities: [world, kube-apiserver]}]")
    assert fault.path == "spec.egress[0].toEntities[1]"
    assert "no Kubernetes API server" in fault.message
    assert fault.value == "kube-apiserver"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CNP + "ingress: [{fromCIDR: [10.0.0.1/8]}]",
         ["spec.ingress[0].fromCIDR[0]: 10.0.0.1/8 has host bits set: did you mean 10.0.0.0/8?"]),
        (CNP + "ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]}]",
         ["spec.ingress[0].fromCIDRSet[0].except[0]: must lie inside 10.0.0.0/8, "
          "not '11.0.0.0/16'"]),
        (CNP + "ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, cidrGroupRef: g}]}]",
         ["spec.ingress[0].fromCIDRSet[0]: needs exactly one of cidr, cidrGroupRef, "
          "cidrGroupSelector"]),
        (CNP + "ingress: [{toPorts: [{ports: [{port: '70000', protocol: TCP}]}]}]",
         ["spec.ingress[0].toPorts[0].ports[0].port: must be 0 to 65535, not 70000"]),
        (CNP + "ingress: [{toPorts: [{ports: [{port: http, protocol: TCP, endPort: 90}]}]}]",
         ["spec.ingress[0].toPorts[0].ports[0].endPort: needs a numeric port before it, not 90"]),
        (CNP + "ingress: [{toPorts: [{ports: [{port: '80', endPort: 70}]}]}]",
         ["spec.ingress[0].toPorts[0].ports[0].endPort: must be 80 or more, not 70"]),
        (CNP + "ingress: [{fromEndpoints: [{}], fromEntities: [host]}]",
         ["spec.ingress[0]: combining fromEndpoints and fromEntities in one rule is not "
          "supported: write one rule each"]),
        (CNP + "ingress: [{icmps: [{fields: [{type: 8}]}], toPorts: [{ports: [{port: '1'}]}]}]",
         ["spec.ingress[0].icmps: cannot stand beside toPorts in one rule: write two rules"]),
        (CNP + "egress: [{toServices: [{}]}]",
         ["spec.egress[0].toServices[0]: needs exactly one of k8sService, k8sServiceSelector"]),
        (CNP + "egress: [{toServices: [{k8sService: {serviceName: a}, "
         "k8sServiceSelector: {selector: {}}}]}]",
         ["spec.egress[0].toServices[0]: needs exactly one of k8sService, k8sServiceSelector"]),
        (CNP + "egress: [{toServices: [{k8sService: {serviceName: A_b, namespace: N}}]}]",
         ["spec.egress[0].toServices[0].k8sService.serviceName: service name 'A_b' is invalid: "
          "lower-case letters, digits and '-', first and last a letter or digit (RFC 1123)",
          "spec.egress[0].toServices[0].k8sService.namespace: namespace name 'N' is invalid: "
          "lower-case letters, digits and '-', first and last a letter or digit (RFC 1123)"]),
        (CNP + "egress: [{toServices: [{k8sService: {namespace: shop}}]}]",
         ["spec.egress[0].toServices[0].k8sService: field 'serviceName' is missing"]),
        (CNP + "egress: [{toServices: [{k8sServiceSelector: {namespace: shop}}]}]",
         ["spec.egress[0].toServices[0].k8sServiceSelector: field 'selector' is missing"]),
        (CNP + "egress: [{toServices: [{k8sService: {serviceName: a, port: 80}}]}]",
         ["spec.egress[0].toServices[0].k8sService.port: unknown field"]),
        (CNP + "ingress: [{fromServices: [{k8sService: {serviceName: a}}]}]",
         ["spec.ingress[0].fromServices: unknown field"]),
        (CNP + "egress: [{toServices: [{k8sService: {serviceName: a}}], toEntities: [world]}]",
         ["spec.egress[0]: combining toEntities and toServices in one rule is not supported: "
          "write one rule each"]),
        (CNP + "description: nothing",
         ["spec: needs at least one rule in ingress, ingressDeny, egress, egressDeny"]),
        (NP + "policyTypes: [Sideways]",
         ["spec.policyTypes[0]: must be one of Ingress, Egress, not 'Sideways'"]),
        (NP + "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]",
         ["spec.ingress[0].from[0]: ipBlock stands alone: no selector beside it"]),
        (NP + "ingress: [{from: [{}]}]",
         ["spec.ingress[0].from[0]: needs podSelector, namespaceSelector or ipBlock"]),
        (NP + "ingress: [{ports: [{endPort: 80}]}]",
         ["spec.ingress[0].ports[0].endPort: needs a port before it, not 80"]),
        (NP + "ingress: [{ports: [{port: 80, protocol: ICMP}]}]",
         ["spec.ingress[0].ports[0].protocol: must be one of TCP, UDP, SCTP, not 'ICMP'"]),
        (NP.replace("podSelector: {}", "podSelector: {matchExpressions: [{key: a, operator: In}]}"),
         ["spec.podSelector.matchExpressions[0]: operator In needs values"]),
        (NP.replace("podSelector: {}", "podSelector: {matchLabels: {'a b': x}}"),
         ["spec.podSelector.matchLabels.a b: label key 'a b' is invalid: letters, digits, '-', "
          "'_', '.' and one '/', 63 characters at most after it"]),
        (NP.replace("podSelector", "podselector"), ["spec.podselector: unknown field"]),
        (NP.replace("v1", "v2"),
         ["apiVersion: must be networking.k8s.io/v1 for kind NetworkPolicy, "
          "not 'networking.k8s.io/v2'"]),
        (NP.replace("NetworkPolicy", "Policy"),
         ["kind: must be one of NetworkPolicy, CiliumNetworkPolicy, "
          "CiliumClusterwideNetworkPolicy, CiliumCIDRGroup, Namespace, Service, EndpointSlice, "
          "not 'Policy'"]),
        (NP.replace("NetworkPolicy", "Deployment"),
         ["kind: a Deployment is not meshnet's, so it is left out: start its command with "
          "`meshnet run --label KEY=VALUE -- COMMAND`"]),
        (NP.replace("namespace: shop", "namespace: Shop"),
         ["metadata.namespace: namespace name 'Shop' is invalid: lower-case letters, digits and "
          "'-', first and last a letter or digit (RFC 1123)"]),
        (NP.replace("metadata: {name: p, ", "metadata: {"),
         ["metadata: field 'name' is missing"]),
        (NP.replace("metadata: {name: p,", "metadata: {annotations: {meshnet.io/audit: 'yes'}, "
                    "name: p,"),
         ['document: annotation meshnet.io/audit must be "true" or "false"']),
        (CNP.replace("endpointSelector: {}", "endpointSelector: {matchLabels: "
                     "{io.kubernetes.pod.namespace: other}}") + "ingress: [{}]",
         ["spec.endpointSelector: selects another namespace than the policy's own, shop"]),
        ("- 1", ["document: must be an object, not [1]"]),
    ],
)  # fmt: skip
def test_faults_name_path_and_value(text: str, expected: list[str]) -> None:
    found = [str(fault) for fault in faults(text)]
    assert [fault for fault in found if "is missing" not in fault or fault in expected] == expected


def test_all_faults_are_told_at_once() -> None:
    text = CNP + (
        "surprise: 1\n  ingress: [{fromCIDR: [x], toPorts: [{ports: [{port: 80}]}]}]\n"
        "  egress: [{toFQDNs: []}, {toEntities: [moon]}]"
    )
    assert {fault.path for fault in faults(text)} == {
        "spec.surprise",
        "spec.ingress[0].fromCIDR[0]",
        "spec.ingress[0].toPorts[0].ports[0].port",
        "spec.egress[0].toFQDNs",
        "spec.egress[1].toEntities[0]",
    }


@pytest.mark.parametrize("broken", ["spec: 7", "spec: [1]", "spec: {podSelector: 7}", "spec: null"])
def test_a_wrong_type_anywhere_is_a_fault_and_never_a_crash(broken: str) -> None:
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"
    assert faults(head + broken)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ("{meshnet.io/scope: everywhere}", "meshnet.io/scope must be cluster or mesh"),
        ("{meshnet.io/origin: west}", "is of cluster west"),
    ],
)
def test_scope_and_origin_are_checked(annotations: str, message: str) -> None:
    named = f"metadata: {{name: p, namespace: shop, annotations: {annotations}}}"
    text = NP.replace("metadata: {name: p, namespace: shop}", named)
    assert message in str(faults(text)[0])


@pytest.mark.parametrize("kind", ["Namespace", "Service"])
def test_what_is_of_its_own_cluster_is_not_for_the_mesh(kind: str) -> None:
    annotations = "annotations: {meshnet.io/scope: mesh}"
    text = f"{{apiVersion: v1, kind: {kind}, metadata: {{name: shop, {annotations}}}"
    text += ", spec: {ports: [{port: 80}]}}" if kind == "Service" else "}"
    (fault,) = faults(text)
    assert "cannot be applied for the whole mesh: that is for NetworkPolicy" in str(fault)


def test_what_other_clusters_would_not_take_is_refused_where_it_is_applied() -> None:
    many = ", ".join(f"{{ports: [{{port: {port}}}]}}" for port in range(1, 1000))
    named = "metadata: {name: p, namespace: shop, annotations: {meshnet.io/scope: mesh}}"
    text = f"{NP}ingress: [{many}]"
    read_manifest(yaml.safe_load(text))
    (fault,) = faults(text.replace("metadata: {name: p, namespace: shop}", named))
    assert "bytes: what is for the whole mesh may have 16384" in str(fault)
