"""Nodes and addresses become the rows of the maps and of the list of endpoints."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import attrs

from meshnet.logic.ipcache import endpoint_view, ipcache_rows, node_rows, outer_address
from meshnet.model.dataplane import IpcacheRow, NodeRow
from meshnet.model.endpoint import EndpointState, IpEntry
from meshnet.model.identity import endpoint_labels
from meshnet.model.node import Node


def node(name: str, cluster: str, cluster_id: int, *addresses: str, block: str) -> Node:
    network = ip_network(block)
    return Node(
        name=name,
        cluster=cluster,
        cluster_id=cluster_id,
        addresses=tuple(ip_address(address) for address in addresses),
        gateways=(network[1],),
        pod_cidrs=(network,),
    )


OWN = node("east-1", "east", 1, "172.20.0.1", "fd00:172::1", block="10.1.0.0/22")
SISTER = node("east-2", "east", 1, "172.20.0.2", block="10.1.4.0/22")
OTHER = node("west-1", "west", 2, "fd00:172::3", "172.20.0.3", block="10.2.0.0/22")
WEB = (2 << 16) + 300


def entry(address: str, host: str | None, *, identity: int = WEB, number: int = 7) -> IpEntry:
    return IpEntry(
        prefix=ip_network(address),
        host=ip_address(host) if host else None,
        identity=identity,
        name="web",
        namespace="shop",
        node="west-1",
        endpoint_id=number,
    )


def test_ipv4_is_the_outer_family_where_both_have_it_and_both_ends_agree() -> None:
    assert outer_address(OWN, OTHER) == ip_address("172.20.0.3")
    assert outer_address(OTHER, OWN) == ip_address("172.20.0.1")


def test_ipv6_is_the_outer_family_where_ipv4_is_not_common() -> None:
    six = attrs.evolve(OTHER, addresses=(ip_address("fd00:172::3"),))
    assert outer_address(OWN, six) == ip_address("fd00:172::3")
    assert outer_address(six, OWN) == ip_address("fd00:172::1")
    assert outer_address(SISTER, six) is None
    assert node_rows(SISTER, [six], path_mtu=1500) == {}


def test_the_own_node_has_a_row_and_it_is_marked_local() -> None:
    rows = node_rows(OWN, [OWN, OTHER], path_mtu=1500)
    assert {address: row.local for address, row in rows.items()} == {
        ip_address("172.20.0.1"): True,
        ip_address("172.20.0.3"): False,
    }


def test_a_probed_path_mtu_wins_over_the_interfaces() -> None:
    outer = ip_address("172.20.0.3")
    rows = node_rows(OWN, [OTHER], path_mtu=1500, path_mtus={outer: 1400})
    assert rows == {
        outer: NodeRow(
            address=outer,
            cluster_id=2,
            pod_cidrs=OTHER.pod_cidrs,
            gateways=OTHER.gateways,
            path_mtu=1400,
        )
    }


def test_an_address_is_reached_by_its_nodes_outer_address_whatever_host_it_names() -> None:
    rows = ipcache_rows(OWN, [OWN, OTHER], [entry("10.2.0.9/32", "fd00:172::3")])
    assert rows[ip_network("10.2.0.9/32")] == IpcacheRow(
        identity=WEB, node=ip_address("172.20.0.3")
    )


def test_gateways_are_host_on_the_own_node_and_remote_node_elsewhere() -> None:
    rows = ipcache_rows(OWN, [OWN, SISTER, OTHER], [])
    assert {str(prefix): row.identity for prefix, row in rows.items()} == {
        "10.1.0.1/32": 1,
        "10.1.4.1/32": 6,
        "10.2.0.1/32": 6,
    }


def test_no_entry_can_pass_itself_off_as_a_gateway() -> None:
    rows = ipcache_rows(OWN, [OTHER], [entry("10.2.0.1/32", "172.20.0.3")])
    assert rows[ip_network("10.2.0.1/32")].identity == 6


def test_an_address_of_an_unknown_node_has_no_row_rather_than_one_in_the_clear() -> None:
    assert ip_network("10.2.0.9/32") not in ipcache_rows(
        OWN, [OWN], [entry("10.2.0.9/32", "172.20.0.3")]
    )


def test_an_address_without_a_host_is_known_but_not_tunnelled() -> None:
    rows = ipcache_rows(OWN, [], [entry("10.2.0.9/32", None)])
    assert rows == {ip_network("10.2.0.9/32"): IpcacheRow(identity=WEB, node=None)}


def test_both_addresses_of_an_endpoint_are_one_row_of_the_list() -> None:
    labels = {WEB: endpoint_labels({"app": "web"}, namespace="shop", cluster="west")}
    entries = [entry("10.2.0.9/32", "172.20.0.3"), entry("fd00:10:2::9/128", "172.20.0.3")]

    [row] = endpoint_view("west", [OTHER], entries, labels)

    assert attrs.asdict(row) == {
        "name": "web",
        "namespace": "shop",
        "cluster": "west",
        "node": "west-1",
        "id": 7,
        "state": EndpointState.READY,
        "identity": WEB,
        "labels": {"app": "web"},
        "ipv4": "10.2.0.9",
        "ipv6": "fd00:10:2::9",
    }


def test_an_endpoint_whose_node_went_is_listed_as_stale() -> None:
    four, six = entry("10.2.0.9/32", "172.20.0.3"), entry("fd00:10:2::9/128", "172.20.0.3")
    [row] = endpoint_view("west", [OTHER], [four, six], {}, stale={four.prefix, six.prefix})
    assert row.state == EndpointState.STALE


def test_ciliums_entries_are_listed_by_the_address_of_their_node() -> None:
    """Cilium with Kubernetes leaves Metadata empty, so neither node nor id is known."""
    plain = attrs.evolve(entry("10.2.0.9/32", "172.20.0.3", number=0), node="")
    [row] = endpoint_view("west", [OTHER], [plain], {})
    assert (row.node, row.id, row.name) == ("west-1", 0, "web")


def test_health_and_ingress_addresses_are_no_endpoints() -> None:
    assert (
        endpoint_view("west", [OTHER], [entry("10.2.0.9/32", "172.20.0.3", identity=4)], {}) == []
    )
