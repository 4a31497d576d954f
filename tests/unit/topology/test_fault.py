"""The words for amounts."""

from __future__ import annotations

import pytest

from meshnet.errors import UsageError
from topology.fault import bits_per_second, percent


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
