"""Ports are taken from the host's own sockets, and exactly those are given back."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshnet.bootstrap import port_pool
from meshnet.bootstrap.sweep import sweep_kernel
from meshnet.config import Paths
from meshnet.netlink.memory import MemoryNetlink

POOL = (40000, 60999)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(run=tmp_path / "run", state=tmp_path / "state", bpf=tmp_path / "bpf")


@pytest.mark.parametrize("before", ["", "4244", "4244,40000-40100", "30000-65535"])
async def test_an_operators_own_reservations_outlive_ours(paths: Paths, before: str) -> None:
    netlink = MemoryNetlink()
    await netlink.set_reserved_ports(before)

    for _ in range(2):
        await port_pool.reserve(paths, netlink, POOL)
    reserved = await netlink.reserved_ports()
    await port_pool.give_back(paths, netlink)

    assert "60999" in reserved or reserved == before
    assert await netlink.reserved_ports() == before


async def test_what_an_operator_adds_meanwhile_stays(paths: Paths) -> None:
    netlink = MemoryNetlink()
    await port_pool.reserve(paths, netlink, POOL)
    await netlink.set_reserved_ports("5000,40000-60999")

    await port_pool.give_back(paths, netlink)
    await port_pool.give_back(paths, netlink)

    assert await netlink.reserved_ports() == "5000"


async def test_another_pool_takes_the_place_of_the_last(paths: Paths) -> None:
    netlink = MemoryNetlink()
    await port_pool.reserve(paths, netlink, POOL)
    await port_pool.reserve(paths, netlink, (20000, 20999))

    assert await netlink.reserved_ports() == "20000-20999"


async def test_a_node_that_is_swept_away_gives_them_back(paths: Paths) -> None:
    netlink = MemoryNetlink()
    await port_pool.reserve(paths, netlink, POOL)

    await sweep_kernel(paths, netlink)

    assert await netlink.reserved_ports() == ""
