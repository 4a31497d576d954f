"""A mode is changed while packets flow: nothing is lost, and the wire shows the new mode."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from meshnet.model.dataplane import Mode
from tests.support.two_nodes import Pair, pinging, two_nodes

pytestmark = [pytest.mark.bpf, pytest.mark.netlink]

COUNT, INTERVAL_S = 400, 0.005


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_nodes(tmp_path_factory.mktemp("bpf")) as nodes:
        yield nodes


def _sent(pair: Pair) -> tuple[int, int]:
    """Packets that endpoints sent to the other node, and those that arrived, at both ends."""
    counts = [pair.counters(host) for host in (pair.east, pair.west)]
    out = sum(c["encapsulated"] + c["sent_native"] for c in counts)
    arrived = sum(c["decapsulated"] + c["received_native"] for c in counts)
    return out, arrived


@pytest.mark.parametrize("to", ["10.2.0.10", "fd00:10:2::10"])
def test_every_change_of_mode_under_traffic_loses_nothing(pair: Pair, to: str) -> None:
    pair.travel_over(4, Mode.VXLAN)
    back = to.replace("10.2.", "10.1.").replace(":2::", ":1::")
    order = [Mode.GENEVE, Mode.NATIVE, Mode.VXLAN, Mode.NATIVE, Mode.GENEVE, Mode.VXLAN]
    used: set[Mode] = set()
    before = _sent(pair)

    with (
        pinging(pair.east.endpoint, to, count=COUNT, interval_s=INTERVAL_S) as one,
        pinging(pair.west.endpoint, back, count=COUNT, interval_s=INTERVAL_S) as other,
    ):
        end = time.monotonic() + COUNT * INTERVAL_S * 0.8
        while time.monotonic() < end:
            # one end after the other: for a while they send by different modes
            for mode in order:
                for host in (pair.east, pair.west):
                    pair.send_by(host, mode)
                    time.sleep(0.02)
                used.add(mode)

    assert (one.lost, other.lost) == (0, 0), (pair.drops(pair.east), pair.drops(pair.west))
    assert used == set(Mode)
    out, arrived = (now - then for now, then in zip(_sent(pair), before, strict=True))
    assert out == arrived
    assert out >= 4 * COUNT, "every ping and every answer passed our programs"
    assert pair.counters(pair.east)["sent_native"] > 0
    assert pair.drops(pair.east) == pair.drops(pair.west) == []


def test_what_travels_is_what_the_row_says(pair: Pair) -> None:
    """Both redirects: out by the next hop given, and in by the peer."""
    for mode, counter in ((Mode.NATIVE, "sent_native"), (Mode.GENEVE, "encapsulated")):
        pair.travel_over(6, mode)
        before = pair.counters(pair.east)[counter]
        with pinging(pair.east.endpoint, "10.2.0.10", count=5, interval_s=0.01) as pings:
            pass
        assert pings.lost == 0, (mode, pair.drops(pair.east), pair.drops(pair.west))
        assert pair.counters(pair.east)[counter] == before + 5
