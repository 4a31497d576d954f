"""A router between two nodes that takes 1400 bytes: first it says so, then it does not.

a (172.30.7.1) ── r ── (172.30.8.2) b: one cluster, the underlay is routed
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.formed import PORT, SERVE, Workload, eventually
from tests.support.lab import Lab, deployed

pytestmark = pytest.mark.lab

LAB = """\
name: {name}
topology:
  nodes:
    r:
      kind: linux
      exec:
        - ip addr add 172.30.7.254/24 dev eth1
        - ip addr add 172.30.8.254/24 dev eth2
        - sysctl -w net.ipv4.ip_forward=1
    a:
      kind: linux
      exec: [ip addr add 172.30.7.1/24 dev eth1, ip route add default via 172.30.7.254]
    b:
      kind: linux
      exec: [ip addr add 172.30.8.2/24 dev eth1, ip route add default via 172.30.8.254]
  links:
    - endpoints: ["a:eth1", "r:eth1"]
    - endpoints: ["b:eth1", "r:eth2"]
"""
OUTER = {"a": "172.30.7.1", "b": "172.30.8.2"}
CLAMP = """
ip route replace 172.30.7.0/24 dev eth1 src 172.30.7.254 mtu lock {mtu}
ip route replace 172.30.8.0/24 dev eth2 src 172.30.8.254 mtu lock {mtu}
"""
MUTE = (
    "nft add table ip mute && "
    "nft add chain ip mute out '{ type filter hook output priority 0; }' && "
    "nft add rule ip mute out icmp type destination-unreachable drop"
)
LOG = "/var/log/meshnet/agent.log"
SIZE = 10 * 1024 * 1024
FILE = "/usr/share/ten-megabytes"
FETCH = """
import hashlib, urllib.request
for host in {hosts}:
    answer = urllib.request.urlopen(f'http://{{host}}:{port}/ten-megabytes', timeout=60)
    print(hashlib.sha256(answer.read()).hexdigest())
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    name = f"tst-router-{os.getpid()}"
    file = tmp_path_factory.mktemp("router") / f"{name}.clab.yml"
    file.write_text(LAB.format(name=name))
    with deployed(file, name=name) as made:
        a, b = made["a"], made["b"]
        a.meshnet("cluster", "init", "east", "--id", "1")
        b.meshnet("cluster", "join", a.meshnet("cluster", "token").stdout.strip())
        try:
            a.meshnet("run", "--name", "client", "--detach", "--", "sleep", "3600")
            b.meshnet("run", "--name", "server", "--detach", "--", *SERVE)
            b.exec(["sh", "-c", f"head -c {SIZE} /dev/urandom > {FILE}"], check=True)
            eventually(lambda: path_mtus(made) == {"a": 1500, "b": 1500}, within_s=60)
            yield made
        finally:
            for node in (b, a):
                node.meshnet("cluster", "leave", "--force", check=False)


def path_mtus(lab: Lab) -> dict[str, int]:
    """What each of the two knows of its way to the other."""
    found = {}
    for node in OUTER:
        status = json.loads(lab[node].meshnet("status", "-o", "json").stdout)
        for peer in status["peers"]:
            found[node] = peer["path_mtu_bytes"] if peer["reachable"] else 0
    return found


def told(lab: Lab) -> int:
    """How many "destination unreachable" the router has sent."""
    words = lab["r"].exec("nstat -asz IcmpOutDestUnreachs", check=True).stdout.split()
    return int(words[words.index("IcmpOutDestUnreachs") + 1])


def measured(lab: Lab, node: str) -> list[str]:
    """What the agent's log says of the path, once it was another than before."""
    lines = lab[node].path(LOG).read_text().splitlines()
    return [line for line in lines if "path MTU" in line]


def server(lab: Lab) -> Workload:
    return Workload.of(
        json.loads(lab["b"].meshnet("endpoint", "show", "server", "-o", "json").stdout)
    )


def fetched(lab: Lab) -> list[str]:
    to = server(lab)
    script = FETCH.format(hosts=(to.ipv4, f"[{to.ipv6}]"), port=PORT)
    return lab["a"].meshnet("exec", "client", "--", "python3", "-c", script).stdout.split()


def test_a_router_that_says_too_big_is_heard(lab: Lab) -> None:
    before = told(lab)
    lab["r"].exec(["sh", "-c", CLAMP.format(mtu=1400)], check=True)

    assert fetched(lab) == [sha256(Path(lab["b"].path(FILE)).read_bytes()).hexdigest()] * 2

    eventually(lambda: path_mtus(lab) == {"a": 1400, "b": 1400}, within_s=60)
    assert told(lab) > before
    for node in OUTER:
        (line,) = measured(lab, node)
        assert re.search(r"bytes\W+1400\b", line), line
        assert re.search(r"a_router_said\W+1400\b", line), line


def test_one_that_says_nothing_is_found_out(lab: Lab) -> None:
    lab["r"].exec(["sh", "-c", MUTE], check=True)
    lab["r"].exec(["sh", "-c", CLAMP.format(mtu=1360)], check=True)

    eventually(lambda: path_mtus(lab) == {"a": 1360, "b": 1360}, within_s=60)

    for node in OUTER:
        line = measured(lab, node)[-1]
        assert re.search(r"bytes\W+1360\b", line), line
        assert not re.search(r"a_router_said\W+\d", line), line
    assert fetched(lab) == [sha256(Path(lab["b"].path(FILE)).read_bytes()).hexdigest()] * 2
