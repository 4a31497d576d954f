"""The agent of a node that does nothing is small."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshnet.agent.lean import START_S
from tests.support.lab import Node, deployed

pytestmark = pytest.mark.lab

IDLE_RSS_KB = 60 * 1024
SOLO = """\
name: solo
topology:
  nodes:
    solo:
      kind: linux
      exec:
        - ip link add eth9 type veth peer name eth8
        - ip addr add 172.31.9.11/24 dev eth9
        - ip addr add fd39::11/64 dev eth9
        - ip link set eth9 up
        - ip link set eth8 up
"""


@pytest.fixture(scope="module")
def solo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One host that is a whole cluster: etcd's node, signer, mesh leader."""
    file = tmp_path_factory.mktemp("lab") / "solo.clab.yml"
    file.write_text(SOLO)
    with deployed(Path(file)) as lab:
        lab["solo"].meshnet("cluster", "init", "solo", "--underlay", "eth9")
        lab["solo"].meshnet("status", "--wait")
        yield lab["solo"]
        lab["solo"].meshnet("cluster", "leave", "--force")


def rss_kb(node: Node) -> int:
    pid = node.path("/run/meshnet/agent.pid").read_text().split()[0]
    rollup = node.exec(["cat", f"/proc/{pid}/smaps_rollup"], check=True).stdout
    found = re.search(r"(?m)^Rss: +(\d+) kB$", rollup)
    assert found
    return int(found[1])


def test_an_idle_agent_takes_less_than_60_mb(solo: Node) -> None:
    deadline = time.monotonic() + START_S + 20
    while (rss := rss_kb(solo)) >= IDLE_RSS_KB and time.monotonic() < deadline:
        time.sleep(1)
    assert rss < IDLE_RSS_KB
    time.sleep(3)
    assert rss_kb(solo) < IDLE_RSS_KB, "and it stays so"
