"""A middle hop that takes 1400 bytes and says nothing: between east-1 and west-2 alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256

import pytest

from tests.support.formed import NODES, PORT, Mesh, Workload, eventually

pytestmark = pytest.mark.lab

PATH_MTU = 1400
FITS = PATH_MTU - 50
SIZE = 10 * 1024 * 1024
FILE = "/usr/share/ten-megabytes"

FORGET = "ip route flush cache; ip -6 route flush cache"
"""What the stack has learnt of paths."""

FETCH = """
import hashlib, urllib.request
for host in {hosts}:
    answer = urllib.request.urlopen(f'http://{{host}}:{port}/ten-megabytes', timeout=40)
    print(hashlib.sha256(answer.read()).hexdigest())
"""

SEND = """
import errno, socket, time
for host, family, level, discover, mtu, size in (
    ({four!r}, socket.AF_INET, socket.IPPROTO_IP, 10, 14, 1450 - 28),
    ({six!r}, socket.AF_INET6, socket.IPPROTO_IPV6, 23, 24, 1450 - 48),
):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(level, discover, 2)  # PMTUDISC_DO: may not be cut
    sock.connect((host, 9))
    for _ in range(100):
        try:
            sock.send(bytes(size))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                print(errno.errorcode[error.errno], sock.getsockopt(level, mtu))
                break
        time.sleep(0.05)
"""


def path_mtus(mesh: Mesh, node: str) -> dict[str, int]:
    return {row["node"]: row["path_mtu_bytes"] for row in mesh.json(node, "status")["peers"]}


@pytest.fixture(scope="module")
def narrow(mesh: Mesh) -> Iterator[Mesh]:
    """Known to both ends; afterwards as wide as before, and known so, too."""
    ends = {"east-1": "west-2", "west-2": "east-1"}
    wide = {node: dict.fromkeys(path_mtus(mesh, node), 1500) for node in ends}

    def all_wide() -> bool:
        return all(path_mtus(mesh, node) == known for node, known in wide.items())

    eventually(all_wide, within_s=60)
    mesh.lab.fault("mtu", "east-1", "west-2", str(PATH_MTU))
    try:
        for node, other in ends.items():
            expected = {**wide[node], other: PATH_MTU}
            eventually(lambda n=node, e=expected: path_mtus(mesh, n) == e, within_s=60)
        mesh.run("west-2", "sh", "-c", f"head -c {SIZE} /dev/urandom > {FILE}")
        yield mesh
    finally:
        mesh.lab.fault("heal")
        mesh.run("west-2", "rm", "-f", FILE)
    eventually(all_wide, within_s=60)


def test_rows_and_routes_of_that_path_alone_are_narrow(
    narrow: Mesh, workloads: dict[str, Workload]
) -> None:
    rows = narrow.json("east-1", "map", "dump", "nodes")
    by_mtu = {mtu: [r for r in rows if r["path_mtu_bytes"] == mtu] for mtu in (1400, 1500)}
    assert len(by_mtu[1400]) == 1
    assert len(by_mtu[1500]) == len(rows) - 1
    for cidr in by_mtu[1400][0]["pod_cidrs"]:
        family = "-6" if ":" in cidr else "-4"
        routes = json.loads(narrow.run("east-1", "ip", "-j", family, "route", "show", cidr))
        assert routes[0]["metrics"][0]["mtu"] == FITS
    routes = json.loads(narrow.inside(workloads["web"], "ip -j route show default"))
    assert routes[0]["metrics"][0]["mtu"] == 1450, "the others' paths are as wide as ever"


@pytest.mark.parametrize("gso", ["on", "off"])
def test_ten_megabytes_arrive(narrow: Mesh, workloads: dict[str, Workload], gso: str) -> None:
    web, cache = workloads["web"], workloads["cache"]
    narrow.inside(cache, f"ethtool -K eth0 tso {gso} gso {gso}; {FORGET}")
    before = narrow.drops("west-2").get("PACKET_TOO_BIG", 0)
    script = FETCH.format(hosts=(cache.ipv4, f"[{cache.ipv6}]"), port=PORT)
    got = narrow.run(web.node, "meshnet", "exec", web.name, "--", "python3", "-c", script)
    expected = sha256(narrow["west-2"].path(FILE).read_bytes()).hexdigest()
    assert got.split() == [expected, expected]
    assert narrow.drops("west-2")["PACKET_TOO_BIG"] >= before + 2, "the sender had to be told"


def test_a_big_datagram_gets_its_icmp(narrow: Mesh, workloads: dict[str, Workload]) -> None:
    web, cache = workloads["web"], workloads["cache"]
    narrow.inside(web, FORGET)
    script = SEND.format(four=cache.ipv4, six=cache.ipv6)
    said = narrow.run(web.node, "meshnet", "exec", web.name, "--", "python3", "-c", script)
    assert said.split() == ["EMSGSIZE", str(FITS)] * 2


def test_what_may_be_cut_arrives_whole(narrow: Mesh, workloads: dict[str, Workload]) -> None:
    """Pings of three fragments: the endpoint cuts to 1450, its node to 1350."""
    web, cache = workloads["web"], workloads["cache"]
    narrow.inside(web, FORGET)
    narrow.inside(cache, FORGET)
    said = narrow.inside(web, f"ping -q -c 2 -i 0.05 -W 2 -M dont -s 4000 {cache.ipv4}")
    assert "2 received" in said


def test_a_node_reaches_what_is_behind_the_narrow_path(
    narrow: Mesh, workloads: dict[str, Workload]
) -> None:
    cache = workloads["cache"]
    for address in (cache.ipv4, cache.ipv6):
        ping = f"ping -q -i 0.05 -W 2 -s 4000 {address}"
        # in IPv6 only the sender cuts: the first answer is what it learns from
        said = narrow.run("east-1", "sh", "-c", f"{ping} -c 1; {ping} -c 2")
        assert "2 received" in said


def test_traceroute_shows_the_gateway(mesh: Mesh, workloads: dict[str, Workload]) -> None:
    web, cache = workloads["web"], workloads["cache"]
    for address in (cache.ipv4, cache.ipv6):
        said = mesh.inside(web, f"ping -n -c 1 -W 2 -t 1 {address} || true")
        assert "exceeded" in said and f"From {address}" not in said


def test_an_agent_outlives_an_underlay_that_has_no_room_for_ipv6(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    """1300 bytes leave 1250: less than a device needs to have IPv6 addresses at all."""
    node, other = "east-2", workloads["web"]

    def complains() -> bool | None:
        done = mesh[node].meshnet("status", "-o", "json", check=False)
        if done.returncode == 5:  # it begins anew just now
            return None
        return "narrow-path" in [row["id"] for row in json.loads(done.stdout)["problems"]]

    pid = mesh.agent_pid(node)
    before = {each: path_mtus(mesh, each) for each in NODES}
    mesh.run(node, "ip", "link", "set", "eth1", "mtu", "1300")
    try:
        eventually(lambda: complains() is True, within_s=60)
        said = mesh.inside(workloads["api"], f"ping -q -c 2 -i 0.05 -W 2 -s 1200 {other.ipv4}")
        assert "2 received" in said
    finally:
        mesh.run(node, "ip", "link", "set", "eth1", "mtu", "1500")
    eventually(lambda: complains() is False, within_s=60)
    for each, known in before.items():
        eventually(lambda n=each, k=known: path_mtus(mesh, n) == k, within_s=60)
    assert mesh.agent_pid(node) == pid
    for address in (other.ipv4, other.ipv6):
        said = mesh.inside(workloads["api"], f"ping -q -c 2 -i 0.05 -W 2 -s 1372 {address}")
        assert "2 received" in said
