"""Rows survive the way to the kernel's bytes and back."""

from __future__ import annotations

import ctypes
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from meshnet.dataplane import abi, rows
from meshnet.model.addressing import Address, Prefix
from meshnet.model.dataplane import EndpointRow, NodeConfig, NodeRow

V4_MAPPED = ip_network("::ffff:0:0/96")


def _is_real(address: Address) -> bool:
    """:: means "none" in a row, and ::ffff:a.b.c.d is the form of IPv4."""
    return address.version == 4 or (int(address) != 0 and address not in V4_MAPPED)


addresses = st.ip_addresses().filter(_is_real)


@st.composite
def prefixes(draw: st.DrawFn) -> Prefix:
    address = draw(addresses)
    length = draw(st.integers(1, address.max_prefixlen))
    prefix = ip_network((address, length), strict=False)
    return prefix if _is_real(prefix.network_address) else ip_network("10.0.0.0/8")


macs = st.binary(min_size=6, max_size=6).map(lambda raw: rows.unpack_mac(raw))
numbers = st.integers(1, 2**32 - 1)


@given(addresses)
def test_an_address_is_what_it_was(address: Address) -> None:
    assert rows.unpack_address(rows.pack_address(address)) == address
    assert len(rows.pack_address(address)) == 16


def test_no_address_is_all_zero() -> None:
    assert rows.pack_address(None) == bytes(16)
    assert rows.unpack_address(bytes(16)) is None


def test_ipv4_is_written_in_its_mapped_form() -> None:
    assert IPv6Address(rows.pack_address(IPv4Address("10.1.0.9"))).ipv4_mapped == IPv4Address(
        "10.1.0.9"
    )


@given(prefixes())
def test_a_prefix_is_what_it_was(prefix: Prefix) -> None:
    assert rows.unpack_prefix(rows.pack_prefix(prefix)) == prefix


def test_a_key_of_all_of_ipv4_begins_after_the_mapping() -> None:
    assert rows.pack_prefix(ip_network("0.0.0.0/0"))[:4] == (96).to_bytes(4, "little")


@given(
    st.builds(
        NodeRow,
        address=addresses,
        cluster_id=st.integers(1, 255),
        pod_cidrs=st.lists(prefixes(), max_size=4, unique=True).map(tuple),
        gateways=st.lists(addresses, max_size=4).map(tuple),
        health=st.lists(addresses, max_size=2).map(tuple),
        ingress=st.lists(addresses, max_size=2).map(tuple),
        path_mtu=st.integers(1280, 9000),
        local=st.booleans(),
    )
)
def test_a_node_is_what_it_was(row: NodeRow) -> None:
    assert rows.unpack_node(rows.pack_node(row, owner=1)) == row


@given(
    st.builds(
        EndpointRow,
        ifindex=numbers,
        endpoint_id=numbers,
        identity=numbers,
        addresses=st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(_is_real)),
        mac=macs,
        ready=st.booleans(),
    )
)
def test_an_endpoint_is_what_it_was(row: EndpointRow) -> None:
    assert rows.unpack_endpoint(rows.pack_endpoint(row)) == row


def test_a_node_without_an_ipv6_underlay_has_none_in_its_constants() -> None:
    config = NodeConfig(
        cluster_id=7,
        underlay_ifindex=2,
        vxlan_ifindex=3,
        underlay_ipv4=ip_address("192.0.2.1"),
        underlay_ipv6=None,
        pod_cidrs=(ip_network("10.7.0.0/24"),),
        gateway_ipv4=ip_address("10.7.0.1"),
        gateway_ipv6=None,
        gateway_mac="02:00:00:00:00:01",
    )

    row = rows.pack_config(config)

    assert bytes(row.underlay_ipv6) == bytes(16)
    assert bytes(row.pod_cidr_ipv6) == bytes(32), "no address is in it"
    assert rows.unpack_block(row.pod_cidr_ipv4) == ip_network("10.7.0.0/24")
    assert rows.unpack_mac(row.gateway_mac) == "02:00:00:00:00:01"
    assert (row.cluster_id, row.vxlan_port) == (7, 8472)


def test_every_layout_has_the_size_that_the_compiler_gave_it() -> None:
    assert {layout: ctypes.sizeof(layout) for layout in abi.SIZES} == abi.SIZES
