"""Maps, generations and links: loaded once, adopted after, replaced when they must be."""

from __future__ import annotations

import os
import struct
from ipaddress import ip_address, ip_network
from pathlib import Path

import attrs
import pytest

from meshnet.dataplane import bpf, programs
from meshnet.dataplane.kernel import KernelDataplane
from meshnet.dataplane.schema import PROGRAMS, Sizes, schema
from meshnet.errors import DatapathError, VerifierRejected
from meshnet.model.dataplane import IpcacheRow
from tests.support.bpf import (
    REDIRECT,
    WEB,
    Node,
    bpf_file_system,
    built,
    config,
    endpoint,
    fill,
    make_links,
    network_namespace,
    run,
)
from tests.support.packets import frame, ip, udp

pytestmark = pytest.mark.bpf

TO_WEST = frame(ip("10.1.0.10", "10.2.0.10", udp(4000, 53)))


@pytest.fixture
def east(fresh: Node) -> Node:
    """What is loaded here is spoilt for others."""
    return fresh


def again(east: Node, **changes: object) -> Node:
    """The agent killed and started anew: nothing is closed in order."""
    options = {"artifact": built(), "sizes": Sizes.lab(), **changes}
    dataplane = KernelDataplane(east.directory, **options)  # type: ignore[arg-type]
    return Node(east.directory, dataplane)


def links(east: Node) -> dict[str, programs.LinkInfo]:
    found = {}
    for path in (east.directory / "links").iterdir():
        fd = bpf.open_pin(path)
        assert fd is not None
        found[path.name] = programs.link_info(fd)
        os.close(fd)
    return found


def generations(east: Node) -> list[str]:
    return sorted(path.name for path in east.directory.glob("gen-*"))


def test_an_agent_that_starts_again_loads_nothing_and_finds_everything(east: Node) -> None:
    before = links(east), generations(east), east.dataplane.nodes(), east.dataplane.ipcache()
    indexes = east.dataplane.dump("nodes")

    heir = again(east)
    heir.dataplane.configure(config())

    after = links(heir), generations(heir), heir.dataplane.nodes(), heir.dataplane.ipcache()
    assert after == before, "same programs, by the kernel's number, and same rows"
    assert heir.dataplane.dump("nodes") == indexes
    assert heir.dataplane.endpoints() == east.dataplane.endpoints()
    assert heir.dataplane.programs == len(PROGRAMS)
    heir.dataplane.close()


def test_packets_go_on_while_no_agent_runs(east: Node) -> None:
    east.dataplane.close()

    assert east.from_web(TO_WEST).verdict == REDIRECT
    east.dataplane = again(east).dataplane


def test_other_constants_are_another_generation_and_every_link_follows(east: Node) -> None:
    before, old = links(east), generations(east)

    east.dataplane.configure(config(vxlan_port=8473))

    after = links(east)
    assert generations(east) != old and len(generations(east)) == 1
    assert after.keys() == before.keys()
    for name, link in after.items():
        assert link.target == before[name].target
        assert link.program_id != before[name].program_id, name


def test_a_rejected_program_leaves_the_old_generation_at_work(east: Node) -> None:
    before = links(east), generations(east)
    load_beyond_context = struct.pack("<BBhi", 0x79, 0x10, 4096, 0)
    code = {**built().programs, "to_tunnel": load_beyond_context + bytes([0x95] + [0] * 7)}
    heir = again(east, artifact=attrs.evolve(built(), programs=code))

    with pytest.raises(
        VerifierRejected, match=r"'to_tunnel' was rejected: invalid bpf_context"
    ) as it:
        heir.dataplane.configure(config())

    assert "processed" in it.value.log
    assert (links(east), generations(east)) == before
    assert east.from_web(TO_WEST).verdict == REDIRECT
    heir.dataplane.close()


def test_what_a_killed_load_left_is_cleared(east: Node) -> None:
    leftover = east.directory / "gen-0123456789abcdef-loading"
    leftover.mkdir()
    bpf.pin(east.map("nodes").fd, leftover / "nodes")

    east.dataplane.configure(config())

    assert not leftover.exists()


def test_a_map_of_another_size_is_replaced_with_its_rows(east: Node) -> None:
    rows = east.dataplane.ipcache()
    east.dataplane.close()

    heir = again(east, sizes=attrs.evolve(Sizes.lab(), ipcache=500))
    heir.dataplane.configure(config())

    assert heir.dataplane.ipcache() == rows
    assert heir.map("ipcache").shape[3] == 500
    assert heir.from_web(TO_WEST).verdict == REDIRECT, "programs use the new map"
    pinned = bpf.open_pin(east.directory / "maps" / "ipcache")
    assert pinned is not None
    assert bpf.Map(pinned, heir.map("ipcache").spec).id == heir.map("ipcache").id
    os.close(pinned)
    east.dataplane = heir.dataplane


def test_a_map_of_another_layout_is_never_reused(
    east: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    east.dataplane.close()
    spec = next(spec for spec in schema(Sizes.lab()) if spec.name == "ipcache")
    other = bpf.Map.create(attrs.evolve(spec, value=spec.key))
    path = east.directory / "maps" / "ipcache"
    path.unlink()
    bpf.pin(other.fd, path)
    other.close()

    heir = again(east)
    heir.dataplane.configure(config())

    assert heir.dataplane.ipcache() == {}
    assert "pinned map 'ipcache' has shape" in capsys.readouterr().out
    fill(heir.dataplane)
    assert heir.from_web(TO_WEST).verdict == REDIRECT
    east.dataplane = heir.dataplane


def test_another_underlay_moves_the_hook(east: Node) -> None:
    east.dataplane.configure(config(underlay_ifindex=east.db))

    assert links(east)["from_underlay"].target == east.db


def test_the_hook_of_an_interface_that_is_gone_goes_with_the_next_load(east: Node) -> None:
    run("ip link del db")

    east.dataplane.configure(config(vxlan_port=8473))

    assert f"from_endpoint-{east.db}" not in links(east)


def test_an_endpoint_without_programs_cannot_be_attached(tmp_path: Path) -> None:
    with network_namespace(), bpf_file_system(tmp_path / "bpf") as pins:
        make_links()
        dataplane = KernelDataplane(pins / "meshnet", built(), sizes=Sizes.lab())
        with pytest.raises(DatapathError, match=r"before configure\(\) loaded programs"):
            dataplane.attach_endpoint(endpoint("web", 10, WEB))
        dataplane.unload()
        dataplane.close()


def test_unloading_leaves_nothing(east: Node) -> None:
    east.dataplane.unload()
    assert list(east.directory.iterdir()) == []
    east.dataplane = KernelDataplane(east.directory, built(), sizes=Sizes.lab())
    assert run("ip -d link show web").count("prog") == 0


def test_many_rows_are_written_and_read_in_batches(east: Node) -> None:
    base = int(ip_address("10.2.0.0"))
    rows = {
        ip_network((base + number, 32)): IpcacheRow(identity=WEB + number, node=None)
        for number in range(10_000)
    }

    east.dataplane.update_ipcache({}, east.dataplane.ipcache())

    east.dataplane.update_ipcache(rows, ())

    assert east.dataplane.ipcache() == rows


def test_a_generation_that_was_half_removed_is_loaded_again(east: Node) -> None:
    (generation,) = east.directory.glob("gen-*")
    (generation / "encapsulate").unlink()

    heir = again(east)
    heir.dataplane.configure(config())

    assert {path.name for path in generation.iterdir()} >= set(PROGRAMS)
    assert heir.from_web(TO_WEST).verdict == REDIRECT
    heir.dataplane.close()
