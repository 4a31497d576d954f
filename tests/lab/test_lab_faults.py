"""Each fault does what it says, to that pair and that way only, and `heal` undoes it whole.

a ┐
b ┼─ sw      a ══ d (a cable)
c ┘
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshnet.errors import LabError
from tests.support.formed import eventually
from tests.support.lab import Lab, deployed, meshnet
from topology import inside, state
from topology.faults import fault as faults

pytestmark = pytest.mark.lab

ADDRESS = {"a": "172.30.5.1", "b": "172.30.5.2", "c": "172.30.5.3", "d": "172.30.4.2"}

LAB = """\
name: faults
topology:
  defaults: {kind: linux}
  nodes:
    sw: {kind: bridge}
    a: {}
    b: {}
    c: {}
    d: {}
  links:
    - {endpoints: ["a:eth1", "sw:a"], mtu: 1500, ipv4: ["172.30.5.1/24", ""], ipv6: ["fd30:5::1/64", ""]}
    - {endpoints: ["b:eth1", "sw:b"], mtu: 1500, ipv4: ["172.30.5.2/24", ""], ipv6: ["fd30:5::2/64", ""]}
    - {endpoints: ["c:eth1", "sw:c"], mtu: 1500, ipv4: ["172.30.5.3/24", ""]}
    - {endpoints: ["a:eth2", "d:eth1"], mtu: 1500, ipv4: ["172.30.4.1/24", "172.30.4.2/24"]}
"""  # noqa: E501

RECEIVE = """
import socket, sys
server = socket.create_server(("", 7000))
print(flush=True)
connection, _ = server.accept()
size = 0
while data := connection.recv(1 << 20):
    size += len(data)
print(size)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("faults") / "lab.clab.yml"
    file.write_text(LAB)
    with deployed(file) as lab:
        yield lab


@pytest.fixture
def lab(whole: Lab) -> Iterator[Lab]:
    """Healthy before and after."""
    yield whole
    fault(whole, "heal")


def run(lab: Lab, node: str, command: str) -> str:
    """One command that must succeed in a host: its stdout."""
    return inside.run(state.load(lab.name), node, *shlex.split(command))


def fault(lab: Lab, *words: str, one_way: bool = False) -> None:
    faults.apply(state.load(lab.name), words, one_way=one_way)


def pings(lab: Lab, sender: str, target: str, options: str = "") -> bool:
    try:
        run(lab, sender, f"ping -c1 -W1 {options} {ADDRESS.get(target, target)}")
    except LabError:
        return False
    return True


def echoes(lab: Lab, node: str) -> int:
    """How many echo requests have reached it."""
    lines = run(lab, node, "cat /proc/net/snmp")
    names, values = re.findall(r"^Icmp: (.*)$", lines, re.MULTILINE)
    return int(dict(zip(names.split(), values.split(), strict=True))["InEchos"])


def sends(lab: Lab, sender: str, receiver: str, size: int, *, within_s: float) -> float | None:
    """Seconds that a TCP stream takes; None: it is not through in time."""
    there = state.load(lab.name)
    server = inside.start(there, receiver, ["python3", "-c", RECEIVE]).process
    try:
        assert server.stdout is not None
        server.stdout.readline()
        address = ADDRESS[receiver]
        send = (
            f"import socket; socket.create_connection(('{address}', 7000)).sendall(bytes({size}))"
        )
        client = inside.start(there, sender, ["python3", "-c", send]).process
        began = time.monotonic()
        try:
            out, _ = server.communicate(timeout=within_s)
            assert int(out) == size
            return time.monotonic() - began
        except subprocess.TimeoutExpired:
            return None
        finally:
            client.terminate()
            client.wait()
    finally:
        server.terminate()
        server.wait()


def test_a_cut_one_way_lets_the_other_way_and_other_pairs_pass(lab: Lab) -> None:
    for sender, target in (("a", "b"), ("a", "c"), ("b", "c"), ("a", "fd30:5::2")):
        assert pings(lab, sender, target)  # they know each other's MACs: ARP is cut as well
    fault(lab, "cut", "a", "b", one_way=True)
    before = echoes(lab, "a"), echoes(lab, "b")
    assert not pings(lab, "a", "b"), "the request is cut"
    assert not pings(lab, "b", "a"), "the answer is cut"
    assert (echoes(lab, "a"), echoes(lab, "b")) == (before[0] + 1, before[1])
    assert not pings(lab, "a", "fd30:5::2")
    assert pings(lab, "a", "c") and pings(lab, "b", "c")
    fault(lab, "heal")
    assert pings(lab, "a", "b")


def test_a_cut_cable_is_dead_to_multicast_too(lab: Lab) -> None:
    multicast = "-t 1 -I eth1 224.0.0.1"
    run(lab, "a", "sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=0")
    before = echoes(lab, "a")
    pings(lab, "d", multicast)
    assert echoes(lab, "a") == before + 1
    fault(lab, "cut", "d", "a")
    pings(lab, "d", multicast)
    assert echoes(lab, "a") == before + 1


def test_a_share_of_the_packets_is_lost(lab: Lab) -> None:
    fault(lab, "loss", "a", "b", "50%", one_way=True)
    out = run(lab, "a", f"ping -q -c 200 -i 0.005 -W 1 {ADDRESS['b']}")
    received = int(re.findall(r"(\d+) received", out)[0])
    assert 50 < received < 150, out
    assert " 0% packet loss" in run(lab, "a", f"ping -q -c 50 -i 0.005 {ADDRESS['c']}")


def test_a_slow_path_is_slow_for_its_pair_and_way_only(lab: Lab) -> None:
    fault(lab, "rate", "a", "b", "8mbit", one_way=True)
    took = sends(lab, "a", "b", 2_000_000, within_s=60)
    print(f"2 MB at 8 Mbit/s took {took} s")
    assert took is not None and took > 1.6, "2 s at that rate, less what queues hold"
    for sender, receiver in (("b", "a"), ("c", "b")):
        freely = sends(lab, sender, receiver, 2_000_000, within_s=60)
        assert freely is not None and freely < 1.6, (sender, receiver)
    fault(lab, "heal")
    freely = sends(lab, "a", "b", 2_000_000, within_s=60)
    assert freely is not None and freely < 1.6
    assert run(lab, "sw", "tc -j qdisc show dev b root").count("htb") == 0


def test_a_slow_path_on_a_cable_is_slow(lab: Lab) -> None:
    fault(lab, "rate", "a", "d", "8mbit")
    took = sends(lab, "a", "d", 2_000_000, within_s=60)
    assert took is not None and took > 1.6


def test_a_narrow_path_behind_a_switch_swallows_what_is_longer(lab: Lab) -> None:
    fault(lab, "mtu", "a", "b", "1400")
    assert pings(lab, "a", "b", "-M do -s 1372")  # 1400 bytes of IP
    assert not pings(lab, "a", "b", "-M do -s 1373")
    assert not pings(lab, "b", "a", "-M do -s 1373")
    assert pings(lab, "a", "c", "-M do -s 1472")
    assert sends(lab, "a", "b", 200_000, within_s=2) is None, "whole segments are too long"
    fault(lab, "heal")
    assert sends(lab, "a", "b", 200_000, within_s=60) is not None
    features = run(lab, "a", "ethtool -k eth1")
    assert "tx-tcp-segmentation: on" in features and "tx-udp-segmentation: on" in features


def test_a_narrow_cable_is_known_to_its_ends(lab: Lab) -> None:
    def mtus() -> list[int]:
        ends = (("a", "eth2"), ("d", "eth1"))
        return [json.loads(run(lab, node, f"ip -j link show {ifname}"))[0]["mtu"]
                for node, ifname in ends]  # fmt: skip

    fault(lab, "mtu", "a", "d", "1300")
    assert mtus() == [1300, 1300]
    done = meshnet("lab", "fault", lab.name, "mtu", "a", "d", "1300", "--one-way")
    assert done.returncode == 2 and "are on one cable, which is as wide both ways" in done.stderr
    fault(lab, "heal")
    assert mtus() == [1500, 1500]


def test_a_wrong_clock_is_its_hosts_alone(lab: Lab) -> None:
    def ahead(node: str) -> float:
        return float(run(lab, node, "date +%s")) - time.time()

    waiting = ["sh", "-c", "while :; do date +%s; sleep 0.2; done"]
    fault(lab, "clock", "a", "+86400")
    assert abs(ahead("a") - 86400) < 60
    assert abs(ahead("b")) < 60
    said = run(lab, "a", "python3 -c 'import time; print(time.time(), time.monotonic())'")
    wall, monotonic = map(float, said.split())
    assert abs(wall - time.time() - 86400) < 60
    assert abs(monotonic - time.monotonic()) < 60, "monotonic clocks stay right"
    lab.fault("clock", "a", "-30")  # an amount, not an option of the command
    assert -90 < ahead("a") < -20

    running = inside.start(state.load(lab.name), "a", waiting).process
    try:
        assert running.stdout is not None
        assert float(running.stdout.readline()) - time.time() < -20
        fault(lab, "heal")
        stream = running.stdout
        eventually(lambda: abs(float(stream.readline()) - time.time()) < 5, within_s=20)
        assert abs(ahead("a")) < 5
    finally:
        running.terminate()
        running.wait()


def test_heal_leaves_neither_rules_nor_queues(lab: Lab) -> None:
    for words in (("cut", "a", "b"), ("rate", "a", "c", "1mbit"), ("loss", "a", "d", "5%")):
        fault(lab, *words)
    assert "meshnet_fault" in run(lab, "sw", "nft list tables")
    fault(lab, "heal")
    for node in lab.nodes:
        assert run(lab, node, "nft list tables") == ""
        assert "htb" not in run(lab, node, "tc qdisc show")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["cut", "a", "nowhere"], 4, "has no node 'nowhere': it has sw, a, b, c, d"),
        (["cut", "a", "a"], 2, "a fault is between two nodes, not 'a' and itself"),
        (["cut", "a", "b", "20%"], 2, "'cut a b 20%' is no fault: cut A B, loss A B 20%"),
        (["loss", "a", "b", "much"], 2, "'much' is not a share: write 20%"),
        (["rate", "a", "b", "fast"], 2, "'fast' is not a rate: write 10mbit"),
        (["mtu", "a", "b", "12"], 2, "'12' is no MTU: write 68 to 65535 bytes"),
        (["clock", "a", "later"], 2, "'later' is no difference in seconds: write +3600 or -30"),
        (["freeze", "a", "--one-way"], 2, "--one-way is for faults between two nodes"),
        (["explode"], 2, "'explode' is no fault"),
    ],
)
def test_a_wrong_fault_is_refused(lab: Lab, words: list[str], code: int, message: str) -> None:
    done = meshnet("lab", "fault", lab.name, *words)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr


def test_a_lab_with_a_killed_host_heals(tmp_path: Path) -> None:
    """Its port of the switch is gone with it."""
    file = tmp_path / "lab.clab.yml"
    file.write_text(LAB)
    with deployed(file, name=f"faults-k-{os.getpid()}") as lab:
        fault(lab, "rate", "a", "b", "1mbit")
        fault(lab, "mtu", "a", "c", "1400")
        fault(lab, "kill", "b")
        fault(lab, "heal")
        assert "htb" not in run(lab, "sw", "tc qdisc show")
        assert pings(lab, "a", "c", "-M do -s 1472")
