"""What an operator is told when the kernel says no."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import attrs
import pytest

from meshnet.dataplane.kernel import KernelDataplane
from meshnet.dataplane.schema import Sizes
from meshnet.errors import CapabilityMissing, MapFull
from meshnet.model.dataplane import IpcacheRow, PolicyKey
from meshnet.model.policy import TCP, Direction
from meshnet.model.ruling import PortRow, Verdict
from tests.support.bpf import WEB, Node, bpf_file_system, built, endpoint, node, run

pytestmark = pytest.mark.bpf

OPEN = """
import sys
from pathlib import Path
from meshnet.dataplane.artifact import Artifact
from meshnet.dataplane.kernel import KernelDataplane
from meshnet.errors import CapabilityMissing
try:
    KernelDataplane(Path(sys.argv[1]), Artifact("", {}, {}))
except CapabilityMissing as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_without_cap_bpf_the_capability_is_named(tmp_path: Path) -> None:
    """A root process whose bounding set lacks what loading needs, as in a container."""
    with bpf_file_system(tmp_path / "bpf") as pins:
        done = subprocess.run(
            ["setpriv", "--bounding-set=-bpf,-sys_admin,-net_admin", sys.executable, "-c", OPEN,
             str(pins / "meshnet")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert done.returncode == 6, done.stderr
    assert "bpf(MAP_CREATE): CAP_BPF and CAP_NET_ADMIN are needed" in done.stdout


def test_without_a_bpf_file_system_the_mount_is_named(tmp_path: Path) -> None:
    with pytest.raises(CapabilityMissing, match="is not in a bpf file system: mount one with"):
        KernelDataplane(tmp_path / "meshnet", built(), sizes=Sizes.lab())


@pytest.fixture
def east(fresh: Node) -> Node:
    """What is loaded here is spoilt for others."""
    return fresh


def full(east: Node, **sizes: int) -> KernelDataplane:
    """The same dataplane with smaller maps."""
    east.dataplane.unload()
    east.dataplane = KernelDataplane(
        east.directory, built(), sizes=attrs.evolve(Sizes.lab(), **sizes)
    )
    return east.dataplane


def test_a_full_ipcache_is_named_with_its_size(east: Node) -> None:
    dataplane = full(east, ipcache=8)
    rows = {
        ip_network(f"10.2.0.{number}/32"): IpcacheRow(identity=WEB, node=None)
        for number in range(20)
    }

    with pytest.raises(MapFull, match=r"'ipcache' is full \(8 entries\)") as it:
        dataplane.update_ipcache(rows, ())
    assert it.value.transient


def test_a_full_prefix_map_is_named_with_its_size(east: Node) -> None:
    dataplane = full(east, prefixes=4)
    rows = {
        ip_network(f"10.{number}.0.0/16"): IpcacheRow(identity=WEB, node=None)
        for number in range(9)
    }

    with pytest.raises(MapFull, match=r"'ipcache_prefix' is full \(4 entries\)"):
        dataplane.update_ipcache(rows, ())


def test_of_a_policy_that_does_not_fit_nothing_is_left(east: Node) -> None:
    """Or what is written instead would find no room either."""
    sizes = {"policy": 8, "policy_classes": 4}
    dataplane = full(east, **sizes)
    first, *others = [PolicyKey(3, Direction.INGRESS, WEB + number) for number in range(10)]
    rows = [PortRow(64, TCP, port, Verdict.DENY, 1) for port in (80, 81)]
    dataplane.write_policy({7: rows}, {first: 7})

    with pytest.raises(MapFull, match=r"'policy' is full \(8 entries\)"):
        dataplane.write_policy({8: rows}, dict.fromkeys([first, *others], 8))
    instead = dict.fromkeys(others[:7], 9)
    dataplane.write_policy({9: rows}, instead)

    heir = KernelDataplane(east.directory, built(), sizes=attrs.evolve(Sizes.lab(), **sizes))
    assert (heir.policy(), heir.policy_classes()) == ({first: 7, **instead}, {7, 9})
    heir.close()


def test_one_node_too_many_is_refused_and_the_others_stay(east: Node) -> None:
    dataplane = full(east, nodes=4)
    rows = [node(f"192.0.2.{number}", 2) for number in range(1, 5)]

    with pytest.raises(MapFull, match=r"'nodes' is full \(3 entries\)"):
        dataplane.update_nodes({row.address: row for row in rows}, ())
    assert set(dataplane.nodes()) == {ip_address(f"192.0.2.{number}") for number in (1, 2, 3)}


def test_an_interface_that_is_gone_is_named(east: Node) -> None:
    row = endpoint("web", 10, WEB)
    east.dataplane.detach_endpoint(row.ifindex)
    run("ip link del web")

    with pytest.raises(Exception, match=f"no interface {row.ifindex} to attach to"):
        east.dataplane.attach_endpoint(row)
