"""A Cilium cluster as far as its etcd and its wire go: values as its own agent writes them."""

from __future__ import annotations

import json

CLUSTER = "cil"
ID = 7
POD_CIDR = "10.7.0.0/16"
POD = "10.7.1.187"
NODE = "n1"
IDENTITY = (ID << 16) + 5
"""Cilium's clusters use numbers below 256 too."""
LABELS = (
    f"k8s:app=server;k8s:io.cilium.k8s.policy.cluster={CLUSTER};"
    "k8s:io.kubernetes.pod.namespace=default;"
)


def keys(host: str = "172.30.7.2") -> dict[str, str]:
    """Everything that such a cluster exports; `host`: the address of its one node."""
    prefixes = ("nodes", "ip", "identities", "services")
    return {
        "cilium/.heartbeat": "2026-11-29T12:00:00Z",
        f"cilium/cluster-config/{CLUSTER}": _json(
            id=ID,
            capabilities={
                "syncedCanaries": True,
                "maxConnectedClusters": 255,
                "serviceExportsEnabled": False,
                "endpointSlicesExportMode": "services-and-endpointslices",
            },
        ),
        f"cilium/state/nodes/v1/{CLUSTER}/{NODE}": _node(host),
        f"cilium/state/ip/v1/default/{POD}": _json(
            IP=POD,
            Mask=None,
            HostIP=host,
            ID=IDENTITY,
            Key=0,
            Metadata="cilium-global:default:n1:785",
            K8sNamespace="default",
            K8sPodName="server-5d8f",
            K8sServiceAccount="default",
        ),
        f"cilium/state/identities/v1/id/{IDENTITY}": LABELS,
        f"cilium/state/services/v1/{CLUSTER}/default/server": _json(
            cluster=CLUSTER,
            namespace="default",
            name="server",
            frontends={},
            backends={POD: {"http": {"Protocol": "TCP", "Port": 8080}}},
            hostnames={},
            zones={},
            labels={},
            selector={"app": "server"},
            includeExternal=True,
            shared=True,
            clusterID=ID,
        ),
        **{
            f"cilium/synced/{CLUSTER}/cilium/state/{kind}/v1": "2026-11-29T12:00:01Z"
            for kind in prefixes
        },
    }


def _node(host: str) -> str:
    return _json(
        Name=NODE,
        Cluster=CLUSTER,
        IPAddresses=[
            {"Type": "InternalIP", "IP": host},
            {"Type": "CiliumInternalIP", "IP": "10.7.1.114"},
        ],
        IPv4AllocCIDR={"IP": "10.7.1.0", "Mask": "////AA=="},
        IPv4SecondaryAllocCIDRs=None,
        IPv6AllocCIDR=None,
        IPv6SecondaryAllocCIDRs=None,
        IPv4HealthIP="10.7.1.90",
        IPv6HealthIP="",
        IPv4IngressIP="",
        IPv6IngressIP="",
        ClusterID=ID,
        Source="custom-resource",
        EncryptionKey=0,
        Labels={"kubernetes.io/os": "linux"},
        Annotations={},
        WireguardPubKey="",
        BootID="03e2d452-96f2-4b0b-a0c5-1e0c6e0d2f53",
        ANewFieldOfANewerCilium={"a": [1]},
    )


def _json(**value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
