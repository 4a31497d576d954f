"""What the port promises, over the fake and over the kernel alike."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import attrs
import pytest

from meshnet.dataplane.api import Dataplane
from meshnet.dataplane.kernel import KernelDataplane
from meshnet.dataplane.memory import MemoryDataplane
from meshnet.dataplane.schema import PROGRAMS, Sizes
from meshnet.errors import NotFound
from meshnet.model.dataplane import IpcacheRow, PolicyKey
from meshnet.model.policy import Direction
from meshnet.model.ruling import PortRow, Verdict
from tests.support.bpf import (
    WEB,
    bpf_file_system,
    built,
    config,
    endpoint,
    make_links,
    network_namespace,
    node,
)

WEST = ip_address("192.0.2.2")


@pytest.fixture(params=["memory", pytest.param("kernel", marks=pytest.mark.bpf)])
def dataplane(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Dataplane]:
    with network_namespace():
        make_links()
        if request.param == "memory":
            memory = MemoryDataplane()
            memory.configure(config())
            yield memory
            memory.unload()
            return
        with bpf_file_system(tmp_path / "bpf") as pins:
            kernel = KernelDataplane(pins / "meshnet", built(), sizes=Sizes.lab())
            kernel.configure(config())
            yield kernel
            kernel.unload()
            kernel.close()


def test_nodes_are_listed_as_they_were_written(dataplane: Dataplane) -> None:
    rows = {
        row.address: row
        for row in (
            node("192.0.2.1", 1, local=True),
            node("192.0.2.2", 2, path_mtu=9000),
            node("2001:db8::2", 2),
        )
    }
    dataplane.update_nodes(rows, ())
    assert dataplane.nodes() == rows

    dataplane.update_nodes({}, [WEST, ip_address("192.0.2.77")])
    del rows[WEST]
    assert dataplane.nodes() == rows


def test_a_node_may_have_more_prefixes_than_fit_its_row(dataplane: Dataplane) -> None:
    many = tuple(ip_network(f"10.2.{number}.0/24") for number in range(7))
    row = node("192.0.2.2", 2, pod_cidrs=many)

    dataplane.update_nodes({WEST: row}, ())

    assert dataplane.nodes() == {WEST: row}


def test_ipcache_rows_of_every_length_are_listed_as_they_were_written(
    dataplane: Dataplane,
) -> None:
    dataplane.update_nodes({WEST: node("192.0.2.2", 2)}, ())
    rows = {
        ip_network("10.2.0.10/32"): IpcacheRow(identity=WEB, node=WEST),
        ip_network("10.2.8.0/22"): IpcacheRow(identity=WEB + 1, node=WEST),
        ip_network("0.0.0.0/0"): IpcacheRow(identity=2, node=None),
        ip_network("fd00:10:2::10/128"): IpcacheRow(identity=WEB, node=WEST),
        ip_network("fd00:10:2::/112"): IpcacheRow(identity=WEB, node=None),
    }
    dataplane.update_ipcache(rows, ())
    assert dataplane.ipcache() == rows

    gone = ip_network("10.2.8.0/22")
    dataplane.update_ipcache({}, [gone, ip_network("10.9.9.9/32")])
    del rows[gone]
    assert dataplane.ipcache() == rows


def test_a_row_of_an_unknown_node_is_not_tunnelled(dataplane: Dataplane) -> None:
    row = IpcacheRow(identity=WEB, node=ip_address("192.0.2.99"))

    dataplane.update_ipcache({ip_network("10.2.0.10/32"): row}, ())

    assert list(dataplane.ipcache().values()) == [IpcacheRow(identity=WEB, node=None)]


def test_a_node_keeps_its_index_when_others_come_and_go(dataplane: Dataplane) -> None:
    rows = [node(f"192.0.2.{number}", 2) for number in range(1, 9)]
    dataplane.update_nodes({row.address: row for row in rows}, ())
    before = {row["address"]: row["node_index"] for row in dataplane.dump("nodes")}

    dataplane.update_nodes({WEST: node("192.0.2.2", 2, path_mtu=1400)}, [rows[0].address])
    dataplane.update_nodes({ip_address("192.0.2.77"): node("192.0.2.77", 2)}, ())

    after = {row["address"]: row["node_index"] for row in dataplane.dump("nodes")}
    kept = {str(row.address) for row in rows[1:]}
    assert {a: i for a, i in after.items() if a in kept} == {a: before[a] for a in kept}
    assert after["192.0.2.77"] not in {before[a] for a in kept} | {0}


def test_endpoints_are_listed_replaced_and_taken_away(dataplane: Dataplane) -> None:
    row = endpoint("web", 10, WEB)
    dataplane.attach_endpoint(row)
    dataplane.attach_endpoint(row)
    assert dataplane.endpoints() == {row.ifindex: row}

    moved = endpoint("web", 12, WEB + 1, ready=False)
    dataplane.attach_endpoint(moved)
    assert dataplane.endpoints() == {row.ifindex: moved}

    dataplane.detach_endpoint(row.ifindex)
    dataplane.detach_endpoint(row.ifindex)
    assert dataplane.endpoints() == {}


def test_maps_are_dumped_with_named_fields(dataplane: Dataplane) -> None:
    dataplane.update_ipcache({ip_network("10.2.0.10/32"): IpcacheRow(identity=WEB, node=None)}, ())

    rows = dataplane.dump("ipcache")
    assert rows == [{"address": "10.2.0.10", "identity": WEB, "node_index": 0}]
    usage = {usage.name: usage.entries for usage in dataplane.maps()}
    assert usage["ipcache"] == 1


def test_a_map_that_is_not_there_is_named_with_those_that_are(dataplane: Dataplane) -> None:
    with pytest.raises(NotFound, match=r"no map 'conntracks' .*ipcache, .*nodes"):
        dataplane.dump("conntracks")


def test_configuring_again_changes_nothing(dataplane: Dataplane) -> None:
    row = endpoint("web", 10, WEB)
    dataplane.attach_endpoint(row)

    dataplane.configure(config())

    assert dataplane.programs == len(PROGRAMS)
    assert dataplane.endpoints() == {row.ifindex: row}


def test_at_first_nothing_is_counted(dataplane: Dataplane) -> None:
    assert dataplane.drops() == []
    assert dataplane.seen_identities() == []
    assert dataplane.read_events() == []


def test_policy_rows_are_written_read_and_removed(dataplane: Dataplane) -> None:
    key, other = PolicyKey(3, Direction.INGRESS, 0), PolicyKey(3, Direction.EGRESS, WEB)
    rows = (PortRow(40, 6, 0, Verdict.ALLOW, 1), PortRow(64, 17, 53, Verdict.DENY, 2))
    dataplane.write_policy({7: rows, 8: rows[:1]}, {key: 7, other: 8})
    assert dataplane.policy() == {key: 7, other: 8}
    assert dataplane.policy_classes() == {7, 8}
    dataplane.write_policy({}, {key: 8})
    assert dataplane.policy()[key] == 8
    dataplane.remove_policy([other, PolicyKey(9, Direction.EGRESS, 0)], [7, 99])
    assert (dataplane.policy(), dataplane.policy_classes()) == ({key: 8}, {8})


def test_an_endpoints_policy_changes_without_its_hooks(dataplane: Dataplane) -> None:
    row = endpoint("web", 10, WEB)
    dataplane.attach_endpoint(row)
    changed = attrs.evolve(row, policy_id=3, policy_epoch=2, audit=True)
    dataplane.update_endpoint(changed)
    assert dataplane.endpoints() == {row.ifindex: changed}
