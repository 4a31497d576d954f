"""What an agent stands on when its underlay becomes another one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from meshnet.agent import start
from meshnet.agent.endpoint_facts import veth_spec
from meshnet.errors import NotFound
from meshnet.model.addressing import parse_address
from meshnet.model.endpoint import Endpoint
from tests.support.node import POD_CIDRS, local_node


@pytest.mark.parametrize(
    ("underlay", "tunnel", "veth"),
    [(9000, 8950, 9000), (1500, 1450, 1500), (1300, 1280, 1300), (1200, 1280, 1280)],
)
def test_devices_take_what_ipv6_needs_whatever_the_underlay_takes(
    underlay: int, tunnel: int, veth: int
) -> None:
    local = local_node()
    local = attrs.evolve(local, underlay=attrs.evolve(local.underlay, mtu=underlay))
    endpoint = Endpoint(
        id=3,
        name="web",
        namespace="default",
        labels={},
        ipv4=parse_address("10.1.4.2"),  # type: ignore[arg-type]  # it is IPv4
        netns="/run/netns/web",
    )

    assert local.device_mtu(local.endpoint_mtu) == tunnel
    assert veth_spec(endpoint, local, local.endpoint_mtu).mtu == veth
    only_ipv4 = attrs.evolve(local, pod_cidrs=POD_CIDRS[:1])
    assert only_ipv4.device_mtu(only_ipv4.endpoint_mtu) == underlay - 50


@pytest.fixture
def laid(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened, of three tries to begin anew the first two of which fail."""
    happened: list[str] = []

    async def lay(_: object, __: object) -> SimpleNamespace:
        happened.append("tried")
        if len(happened) < 3:
            raise NotFound("underlay interface 'eth1' does not exist or has no global address")
        return SimpleNamespace()

    monkeypatch.setattr(start, "lay_foundation", lay)
    monkeypatch.setattr(start, "RETRY_S", 0.01)
    return happened


async def test_an_agent_that_cannot_begin_anew_tries_until_it_can(laid: list[str]) -> None:
    settings = SimpleNamespace()
    async with asyncio.timeout(10):
        assert await start.lay_again(Path(), settings, asyncio.Event()) is not None  # type: ignore[arg-type]
    assert len(laid) == 3


async def test_or_until_it_is_told_to_end(laid: list[str]) -> None:
    end = asyncio.Event()
    end.set()
    assert await start.lay_again(Path(), SimpleNamespace(), end) is None  # type: ignore[arg-type]
    assert laid == []
