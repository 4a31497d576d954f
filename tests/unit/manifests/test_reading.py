"""What the readers make of manifests that are right."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import yaml

from meshnet.manifests.kinds import meaning, read_manifest
from meshnet.model.policy import (
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    CidrPeer,
    Direction,
    EndpointPeer,
    NamedPort,
    Operator,
    Policy,
    PortRange,
    Requirement,
    Selector,
    ServicePeer,
)


def policies(text: str) -> tuple[Policy, ...]:
    found: Any = meaning(read_manifest(yaml.safe_load(text)))
    return tuple(found)


def test_network_policy_of_the_kubernetes_documentation() -> None:
    """https://kubernetes.io/docs/concepts/services-networking/network-policies/"""
    (policy,) = policies("""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: test-network-policy, namespace: default}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
        - namespaceSelector: {matchLabels: {project: myproject}}
        - podSelector: {matchLabels: {role: frontend}}
      ports: [{protocol: TCP, port: 6379}]
  egress:
    - to: [{ipBlock: {cidr: 10.0.0.0/24}}]
      ports: [{protocol: TCP, port: 32000, endPort: 32768}]
""")
    assert policy.default_deny == set(Direction)
    ingress, egress = policy.rules
    assert ingress.place == "spec.ingress[0]"
    assert ingress.ports == (PortRange(TCP, 6379, 6379),)
    assert ingress.peers is not None
    block, namespace, frontend = ingress.peers
    excepted = frozenset({ip_network("172.17.1.0/24")})
    assert block == CidrPeer(ip_network("172.17.0.0/16"), excepted)
    assert isinstance(namespace, EndpointPeer) and isinstance(frontend, EndpointPeer)
    other = {"io.kubernetes.pod.namespace": "other"}
    project = {"io.cilium.k8s.namespace.labels.project": "myproject"}
    assert namespace.selector.matches({**other, **project})
    assert not namespace.selector.matches(project), "a node has no namespace"
    assert not frontend.selector.matches({"role": "frontend", **other})
    assert frontend.selector.matches({"role": "frontend", "io.kubernetes.pod.namespace": "default"})
    assert egress.ports == (PortRange(TCP, 32000, 32768),)


def test_empty_and_absent_mean_what_the_api_reference_says() -> None:
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n"
    (nothing,) = policies(head + "  podSelector: {}")
    assert (nothing.default_deny, nothing.rules) == ({Direction.INGRESS}, ())
    (everything,) = policies(head + "  podSelector: {}\n  ingress: [{}]")
    assert everything.rules[0].peers is None and everything.rules[0].ports is None
    (egress,) = policies(head + "  podSelector: {}\n  egress: [{to: [], ports: []}]")
    assert egress.default_deny == set(Direction)
    (only,) = policies(head + "  podSelector: {}\n  ingress: [{}]\n  policyTypes: [Egress]")
    assert (only.default_deny, only.rules) == ({Direction.EGRESS}, ())


CNP = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspec:\n"


def test_cilium_rules_that_name_nobody_allow_nobody() -> None:
    (policy,) = policies(CNP + "  endpointSelector: {}\n  ingress: [{}]")
    assert policy.rules[0].peers == ()
    assert policy.default_deny == {Direction.INGRESS}
    (policy,) = policies(
        CNP + "  endpointSelector: {}\n  ingress: [{toPorts: [{ports: [{port: '80'}]}]}]"
    )
    assert policy.rules[0].peers is None, "ports alone: from anybody"
    assert policy.rules[0].ports == tuple(PortRange(p, 80, 80) for p in (TCP, UDP, SCTP))
    (policy,) = policies(CNP + "  endpointSelector: {}\n  ingress: [{fromEndpoints: []}]")
    assert policy.rules[0].peers == ()


def test_cilium_ports_named_ranged_whole_and_icmp() -> None:
    (policy,) = policies(
        CNP
        + """
  endpointSelector: {}
  egress:
  - toPorts:
    - ports:
      - {port: http, protocol: TCP}
      - {port: "1000", endPort: 2000, protocol: udp}
      - {port: "0", protocol: SCTP}
      - {port: dns}
  - icmps: [{fields: [{family: IPv6, type: EchoRequest}, {type: 8}]}]
"""
    )
    ports, icmps = policy.rules
    assert ports.ports == (
        NamedPort("http", TCP),
        PortRange(UDP, 1000, 2000),
        PortRange(SCTP),
        NamedPort("dns", None),
    )
    assert icmps.ports == (PortRange(ICMPV6, 128, 128), PortRange(1, 8, 8))


def test_which_namespace_a_cilium_selector_means() -> None:
    def peer(text: str, head: str = CNP) -> EndpointPeer:
        (policy,) = policies(
            head + "  endpointSelector: {}\n  ingress: [{fromEndpoints: [" + text + "]}]"
        )
        assert policy.rules[0].peers is not None
        (found,) = policy.rules[0].peers
        assert isinstance(found, EndpointPeer)
        return found

    own = {"io.kubernetes.pod.namespace": "default"}
    other = {"io.kubernetes.pod.namespace": "other"}
    assert peer("{}").selector.matches(own)
    assert not peer("{}").selector.matches(other)
    named = peer("{matchLabels: {'k8s:io.kubernetes.pod.namespace': other}}").selector
    assert named.matches(other) and not named.matches(own)
    by_label = peer("{matchLabels: {io.cilium.k8s.namespace.labels.team: a}}").selector
    assert by_label.matches({**other, "io.cilium.k8s.namespace.labels.team": "a"})
    clusterwide = peer("{}", CNP.replace("NetworkPolicy", "ClusterwideNetworkPolicy")).selector
    assert clusterwide.matches(other) and not clusterwide.matches({"reserved:host": ""})
    assert peer("{matchLabels: {'reserved:host': ''}}").selector.matches({"reserved:host": ""})


def test_services_by_name_and_by_the_labels_of_the_service() -> None:
    """Cilium's examples/policies/l3/service/service.yaml, and one of no namespace."""
    (policy,) = policies(
        CNP
        + """
  endpointSelector: {matchLabels: {id: app2}}
  egress:
  - toServices:
    - k8sService: {serviceName: myservice, namespace: default}
    - k8sServiceSelector:
        selector: {matchLabels: {"k8s:env": staging}}
        namespace: another-namespace
    - k8sService: {serviceName: anywhere}
"""
    )
    staging = Selector(frozenset({Requirement("env", Operator.IN, frozenset({"staging"}))}))
    assert policy.rules[0].peers == (
        ServicePeer("default", "myservice"),
        ServicePeer("another-namespace", None, staging),
        ServicePeer("", "anywhere"),
    )


def test_enable_default_deny_and_audit() -> None:
    audited = CNP.replace("{name: p}", "{name: p, annotations: {meshnet.io/audit: 'true'}}")
    (policy,) = policies(
        audited + "  endpointSelector: {}\n  enableDefaultDeny: {ingress: false}\n"
        "  ingressDeny: [{fromEntities: [world]}]\n  egress: [{toEntities: [cluster]}]"
    )
    assert policy.default_deny == {Direction.EGRESS}
    assert policy.audit
    assert [rule.deny for rule in policy.rules] == [True, False]


def test_specs_are_policies_of_one_manifest() -> None:
    found = policies(
        CNP.replace("spec:\n", "specs:\n")
        + "- {endpointSelector: {}, ingress: [{}]}\n- {endpointSelector: {}, egress: [{}]}"
    )
    assert [policy.rules[0].place for policy in found] == ["specs[0].ingress[0]",
                                                           "specs[1].egress[0]"]  # fmt: skip


def test_what_a_server_adds_is_dropped_and_the_rest_is_kept_in_order() -> None:
    text = """
apiVersion: v1
kind: Namespace
metadata: {labels: {team: a}, name: shop, uid: 1-2-3, resourceVersion: "7",
           creationTimestamp: null, annotations: {note: x}}
spec: {finalizers: [kubernetes]}
status: {phase: Active}
"""
    manifest = read_manifest(yaml.safe_load(text))
    assert list(manifest.document) == ["apiVersion", "kind", "metadata", "spec"]
    assert manifest.document["metadata"] == {
        "labels": {"team": "a"},
        "name": "shop",
        "annotations": {"note": "x"},
    }
    assert meaning(manifest) == {"team": "a"}
    assert read_manifest(manifest.document) == manifest
