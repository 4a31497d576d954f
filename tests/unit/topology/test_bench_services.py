"""What the benchmark of services asks of each alternative is the same thing."""

from __future__ import annotations

import re

import pytest

from topology.bench import services


@pytest.mark.parametrize("count", [1, 10, 300])
def test_all_alternatives_have_the_same_frontends(count: int) -> None:
    ours = {(str(front.address), str(front.port)) for front in services.rows(count)}
    rules = services.rulesets(count)
    assert len(ours) == 2 * count
    by_map = re.findall(r"(100[\d.]+) \. (\d+) : ", rules["map"])
    by_rule = re.findall(r"ip daddr ([\d.]+) tcp dport (\d+) dnat", rules["rules"])
    assert set(by_map) == set(by_rule) == ours
    assert len(by_map) == len(by_rule) == 2 * count
