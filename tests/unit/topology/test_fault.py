"""The words for amounts."""

from __future__ import annotations

import pytest

from meshnet.errors import UsageError
from topology.faults.clock import seconds
from topology.faults.fault import bits_per_second, packet_size, percent


@pytest.mark.parametrize(
    ("text", "bits"),
    [("10mbit", 10_000_000), ("1.5Gbit", 1_500_000_000), ("500kbit", 500_000), ("8bit", 8)],
)
def test_rates_are_read_as_tc_reads_them(text: str, bits: int) -> None:
    assert bits_per_second(text) == bits


@pytest.mark.parametrize("text", ["10", "mbit", "fast", "10mb", ""])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a rate: write 10mbit"):
        bits_per_second(text)


def test_shares_are_percents() -> None:
    assert percent("20%") == 20.0
    assert percent("0.5") == 0.5
    for text in ("0%", "101%"):
        with pytest.raises(UsageError, match="is not between 0 and 100 %"):
            percent(text)
    with pytest.raises(UsageError, match="is not a share"):
        percent("some")


def test_sizes_are_what_a_link_can_carry() -> None:
    assert packet_size("1400") == 1400
    for text in ("67", "65536", "-5", "some", ""):
        with pytest.raises(UsageError, match="is no MTU: write 68 to 65535 bytes"):
            packet_size(text)


def test_a_clock_is_ahead_or_behind() -> None:
    assert (seconds("+3600"), seconds("-0.5"), seconds("+30s")) == (3600.0, -0.5, 30.0)
    for text in ("30", "+", "later", ""):
        with pytest.raises(UsageError, match="is no difference in seconds: write"):
            seconds(text)
