"""Certificates that live two minutes carry a mesh for many of their lives, and both clusters
change their CAs: the long form of tests/lab/test_mesh_trust.py. Exits 1 when a packet was lost.

python -m tests.support.short_lives --minutes 10
"""

from __future__ import annotations

import argparse
import re
import subprocess
import time
from datetime import UTC, datetime

from tests.support.formed import Mesh, formed

INTERVAL_S = 0.05
FOUNDERS = ("east-1", "west-1")
SUMMARY = re.compile(r"(\d+) packets transmitted, (\d+) received")
BAD = {"certificate-expired", "renewal-failed", "trust-not-followed"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    minutes = parser.parse_args().minutes
    with formed("lives") as mesh:
        mesh.start("east-2", "api")
        mesh.start("west-2", "cache")
        for founder in FOUNDERS:
            mesh.run(founder, "meshnet", "config", "set", "certificate_lifetime", "2m")
        return 0 if soak(mesh, minutes * 60) else 1


def soak(mesh: Mesh, seconds: int) -> bool:
    """Pings both ways; each cluster changes its CAs after a third of the time."""
    api, cache = mesh.workload("east-2", "api"), mesh.workload("west-2", "cache")
    ways = (("east-2", "api", cache.ipv4), ("west-2", "cache", api.ipv6))
    pings = [_ping(mesh, *way, count=int(seconds / INTERVAL_S)) for way in ways]
    for founder in FOUNDERS:
        time.sleep(seconds / 3)
        mesh.run(founder, "meshnet", "cluster", "ca", "rotate")
        print(f"{founder}: the CAs are being replaced", flush=True)
    whole = True
    for (node, _, to), ping in zip(ways, pings, strict=True):
        sent, received = _summary(ping)
        print(f"{node} to {to}: {sent} sent, {received} answered", flush=True)
        whole = whole and sent == received > 0
    for node, status in mesh.each("status").items():
        left = min(_seconds_left(row["expires_at"]) for row in status["certificates"])
        problems = {problem["id"] for problem in status["problems"]}
        print(f"{node}: certificate ends in {left:.0f} s, {problems or 'no problem'}", flush=True)
        whole = whole and 0 < left <= 125 and not problems & BAD
    return whole


def _ping(mesh: Mesh, node: str, name: str, to: str, *, count: int) -> subprocess.Popen[str]:
    ping = ("ping", "-q", "-n", "-i", str(INTERVAL_S), "-W", "5", "-c", str(count), to)
    argv = mesh[node].argv(["meshnet", "exec", name, "--", *ping])
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def _seconds_left(expires_at: str) -> float:
    return (datetime.fromisoformat(expires_at) - datetime.now(UTC)).total_seconds()


def _summary(ping: subprocess.Popen[str]) -> tuple[int, int]:
    said, _ = ping.communicate()
    found = SUMMARY.search(said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


if __name__ == "__main__":
    raise SystemExit(main())
