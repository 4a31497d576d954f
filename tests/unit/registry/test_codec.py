"""Values in etcd: Cilium's to the letter, and what is refused with which words."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest

from meshnet.model.addressing import PodCIDR, parse_address, parse_prefix
from meshnet.model.cluster import Cluster, ClusterConfig, Routing, default_pod_cidrs
from meshnet.model.endpoint import Endpoint, IpEntry, OwnerProcess
from meshnet.model.identity import Identity, LabelSet
from meshnet.model.node import Node
from meshnet.model.remote import Remote
from meshnet.model.token import TokenKind, TokenRecord
from meshnet.registry import codec, schema

NODE_KEY = "cilium/state/nodes/v1/west/n1"
NODE = Node(
    name="n1",
    cluster="west",
    cluster_id=1,
    addresses=(parse_address("10.77.0.1"),),
    gateways=(parse_address("10.1.1.114"),),
    pod_cidrs=(parse_prefix("10.1.1.0/24"),),
    boot_id="03e2d452",
)
NODE_VALUE = (
    b'{"Name":"n1","Cluster":"west","IPAddresses":[{"Type":"InternalIP","IP":"10.77.0.1"},'
    b'{"Type":"CiliumInternalIP","IP":"10.1.1.114"}],"IPv4AllocCIDR":{"IP":"10.1.1.0","Mask":'
    b'"////AA=="},"IPv4SecondaryAllocCIDRs":null,"IPv6AllocCIDR":null,"IPv6SecondaryAllocCIDRs":'
    b'null,"IPv4HealthIP":"","IPv6HealthIP":"","IPv4IngressIP":"","IPv6IngressIP":"","ClusterID":1,'
    b'"Source":"local","EncryptionKey":0,"Labels":{},"Annotations":{},"WireguardPubKey":"",'
    b'"BootID":"03e2d452"}'
)
IP_KEY = "cilium/state/ip/v1/default/10.1.1.187"
IP_VALUE = (
    b'{"IP":"10.1.1.187","Mask":null,"HostIP":"10.77.0.1","ID":90214,"Key":0,"Metadata":'
    b'"cilium-global:default:n1:785","K8sNamespace":"default","K8sPodName":"p11"}'
)
IP = IpEntry(
    prefix=parse_prefix("10.1.1.187/32"),
    host=parse_address("10.77.0.1"),
    identity=90214,
    name="p11",
    namespace="default",
    node="n1",
    endpoint_id=785,
)
LABELS = b"k8s:app=web;k8s:io.cilium.k8s.policy.cluster=east;k8s:io.kubernetes.pod.namespace=shop;"
IDENTITY_KEY = "cilium/state/identities/v1/id/131073"


def changed(value: bytes, **fields: Any) -> bytes:
    return json.dumps({**json.loads(value), **fields}).encode()


def test_a_node_is_written_as_a_cilium_agent_writes_itself() -> None:
    assert codec.encode_node(NODE) == NODE_VALUE
    assert codec.decode_node(NODE_KEY, NODE_VALUE, cluster_id=1) == NODE


def test_a_node_of_both_families_and_several_blocks_comes_back_whole() -> None:
    cidrs = ("10.1.0.0/22", "10.200.0.0/24", "fd00:10:1::/112", "fd00:20::/64")
    node = Node(
        name="n1",
        cluster="west",
        cluster_id=1,
        addresses=(parse_address("192.0.2.1"), parse_address("2001:db8::1")),
        gateways=(parse_address("10.1.0.1"), parse_address("fd00:10:1::1")),
        health=(parse_address("10.1.0.2"), parse_address("fd00:10:1::2")),
        ingress=(parse_address("fd00:10:1::3"),),
        pod_cidrs=tuple(parse_prefix(cidr) for cidr in cidrs),
    )
    value = codec.encode_node(node)
    assert codec.decode_node(NODE_KEY, value) == node
    assert json.loads(value)["IPv6HealthIP"] == "fd00:10:1::2"
    assert json.loads(value)["IPv4IngressIP"] == ""
    assert json.loads(value)["IPv6AllocCIDR"]["Mask"] == "//////////////////8AAA=="


def test_a_node_of_a_sparse_writer_is_read() -> None:
    value = (
        b'{"Name":"m1","Cluster":"east","ClusterID":2,"IPAddresses":[{"Type":"ExternalIP","IP":'
        b'"198.51.100.1"},{"Type":"InternalIP","IP":"10.77.0.3"}],"IPv4AllocCIDR":{"IP":"10.2.0.0",'
        b'"Mask":"////AA=="},"Labels":null,"NewInCilium":{"x":[1]}}'
    )
    node = codec.decode_node("cilium/cache/nodes/v1/east/m1", value, cluster_id=2)
    assert [str(address) for address in node.addresses] == ["10.77.0.3", "198.51.100.1"]
    assert node.pod_cidrs == (parse_prefix("10.2.0.0/24"),)


def test_an_endpoint_address_is_written_as_cilium_writes_it() -> None:
    assert codec.encode_ip_entry(IP) == IP_VALUE
    assert codec.decode_ip_entry(IP_KEY, IP_VALUE, cluster_id=1) == IP


def test_named_ports_travel_in_ciliums_form() -> None:
    entry = IpEntry(prefix=IP.prefix, host=None, identity=6, named_ports={"http": "8080/tcp"})
    value = codec.encode_ip_entry(entry)
    assert json.loads(value)["NamedPorts"] == [{"Name": "http", "Port": 8080, "Protocol": "TCP"}]
    assert json.loads(value)["HostIP"] == ""
    assert codec.decode_ip_entry(IP_KEY, value) == entry


def test_an_ip_key_that_is_a_cidr_is_read() -> None:
    value = b'{"IP":"10.2.0.16","Mask":"////8A==","HostIP":"10.77.0.3","ID":131073}'
    for scope in ("state/ip/v1/default", "cache/ip/v1/east"):
        entry = codec.decode_ip_entry(f"cilium/{scope}/10.2.0.16/28", value, cluster_id=2)
        assert entry.prefix == parse_prefix("10.2.0.16/28")
        assert schema.ip(entry.prefix) == "cilium/state/ip/v1/default/10.2.0.16/28"


def test_an_identity_is_its_labels() -> None:
    identity = Identity(131073, LabelSet.parse(LABELS.decode()))
    assert codec.encode_identity(identity) == LABELS
    assert codec.decode_identity(IDENTITY_KEY, LABELS, cluster_id=2, cluster="east") == identity
    cached = "cilium/cache/identities/v1/east/id/131073"
    assert codec.decode_identity(cached, LABELS) == identity


@pytest.mark.parametrize(
    ("config", "value"),
    [
        (
            ClusterConfig(id=2),
            b'{"id":2,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}',
        ),
        (
            ClusterConfig(id=2, cached=True),
            b'{"id":2,"capabilities":{"syncedCanaries":true,"cached":true,"maxConnectedClusters":255}}',
        ),
        (
            ClusterConfig(id=2, synced_canaries=False, max_connected_clusters=0),
            b'{"id":2}',
        ),
    ],
)
def test_a_cluster_introduces_itself_in_ciliums_words(config: ClusterConfig, value: bytes) -> None:
    assert codec.encode_cluster_config(config) == value
    assert codec.decode_cluster_config("cilium/cluster-config/east", value) == config


def test_our_own_values_come_back_as_they_went() -> None:
    cluster = Cluster(name="west", id=1, pod_cidrs=default_pod_cidrs(1), routing=Routing.AUTO)
    remote = Remote(
        name="east", id=2, mesh_ca="PEM", pod_cidrs=default_pod_cidrs(2), gateways=("h:4243",)
    )
    endpoint = Endpoint(
        id=3,
        name="web",
        labels={"app": "web"},
        ipv4=parse_address("10.1.0.2"),  # type: ignore[arg-type]  # it is IPv4
        ipv6=parse_address("fd00::2"),  # type: ignore[arg-type]  # it is IPv6
        netns="/run/netns/web",
        owner=OwnerProcess(pid=7, start_time=9),
    )
    token = TokenRecord(
        id="ab12",
        kind=TokenKind.MESH,
        for_cluster="east",
        expires_at=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    )
    block = PodCIDR(network=parse_prefix("10.1.4.0/22"), node="n1", epoch=3)
    cases: list[tuple[str, Any, Callable[[Any], bytes], Callable[[str, bytes], Any]]] = [
        (schema.CONFIG, cluster, codec.encode_cluster, codec.decode_cluster),
        (schema.remote("east"), remote, codec.encode_remote, codec.decode_remote),
        (schema.endpoint("n1", 3), endpoint, codec.encode_endpoint, codec.decode_endpoint),
        (schema.token("00"), token, codec.encode_token, codec.decode_token),
        (
            schema.pod_cidr_allocation(block.network),
            block,
            codec.encode_pod_cidr,
            codec.decode_pod_cidr,
        ),
    ]
    for key, item, encode, decode in cases:
        assert decode(key, encode(item)) == item
        future = changed(encode(item), a_field_of_later="x")
        assert decode(key, future) == item
