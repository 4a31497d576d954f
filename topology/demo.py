"""`make demo`: two clusters, four hosts, one flat network, and what to look at.

python -m topology.demo up | down
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import attrs

from meshnet.errors import MeshnetError, NotFound
from topology import labs, reach
from topology.formation import form
from topology.inside import run, run_all
from topology.model import RuntimeKind
from topology.reach import Reached
from topology.state import LabState

FILE = Path(__file__).resolve().parents[1] / "containerlab" / "two-clusters.clab.yml"
LAB = "two-clusters"
WORKLOADS = {"east-1": "web", "east-2": "api", "west-1": "db", "west-2": "cache"}
PORT = 8080

NEXT = f"""\
The lab stays up. Try:
  meshnet lab exec east-1 -- meshnet status
  meshnet lab exec east-1 -- meshnet endpoint list --all-clusters
  meshnet lab exec east-1 -- meshnet exec web -- curl -s http://ADDRESS:{PORT}/etc/hostname
  meshnet lab exec east-1 -- meshnet run --name shell -t -- bash
  meshnet lab exec west-2 -- meshnet map dump ipcache
  meshnet lab exec west-2 -- tcpdump -c 4 -nvi eth1 udp port 8472
  make demo-down"""


@attrs.frozen(kw_only=True)
class Workload:
    name: str
    node: str
    cluster: str
    id: int
    identity: int
    ipv4: str
    ipv6: str


def main(verb: str) -> int:
    if verb == "down":
        _take_down()
        return 0
    began = time.monotonic()
    _take_down()
    lab = labs.up(FILE, RuntimeKind.NETNS, _say, _say)
    clusters = form(lab, _say)
    _say("starting a workload on every host")
    run_all(lab, {node: _workload(name) for node, name in WORKLOADS.items()})
    workloads = _workloads(lab)
    _say("trying every endpoint from every other")
    reached = _try_all(lab, workloads)
    for cluster in clusters:
        print(f"\nThe mesh as {cluster.name} sees it:")
        print(run(lab, cluster.founder, "meshnet", "mesh", "status").rstrip())
    print(f"\nping in ms, IPv4 / IPv6, and TCP to port {PORT} (a ! where it failed):")
    _print_matrix(workloads, lambda source, target: _spoken(reached, source, target))
    print("\nthe sender's identity (cluster id:number), as the receiver's node saw it:")
    seen = _seen(lab, workloads)
    _print_matrix(workloads, lambda source, target: _identity(seen, source, target))
    failed = [r for pair in reached.values() for r in pair if r.rtt_ms is None or not r.tcp]
    print(f"\n{NEXT}\n")
    _say(f"done in {time.monotonic() - began:.1f} s")
    return 1 if failed else 0


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _take_down() -> None:
    try:
        labs.down(LAB)
    except NotFound:
        return  # it was not up


def _workload(name: str) -> tuple[str, ...]:
    serve = ("python3", "-m", "http.server", str(PORT), "--bind", "::", "--directory", "/")
    return ("meshnet", "run", "--name", name, "--label", f"app={name}", "--detach", "--", *serve)


def _workloads(lab: LabState) -> list[Workload]:
    """All of them, as one node of the mesh lists them."""
    node = next(iter(WORKLOADS))
    deadline = time.monotonic() + 5
    while True:
        listed: list[dict[str, Any]] = json.loads(
            run(lab, node, "meshnet", "endpoint", "list", "--all-clusters", "-o", "json")
        )
        if len(listed) >= len(WORKLOADS) or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    keys = [field.name for field in attrs.fields(Workload)]
    return [Workload(**{key: row[key] for key in keys}) for row in listed]


def _try_all(
    lab: LabState, workloads: list[Workload]
) -> dict[tuple[str, str], tuple[Reached, Reached]]:
    """(source, target) -> its IPv4 and IPv6, every pair at the same time."""
    commands = {
        source.node: (
            "meshnet",
            "exec",
            source.name,
            "--",
            "sh",
            "-c",
            reach.script((a for w in workloads if w != source for a in (w.ipv4, w.ipv6)), PORT),
        )
        for source in workloads
    }
    outputs = run_all(lab, commands)
    results = {}
    for source in workloads:
        found = reach.read(outputs[source.node])
        for target in workloads:
            if target != source:
                results[source.name, target.name] = (
                    found.get(target.ipv4, Reached()),
                    found.get(target.ipv6, Reached()),
                )
    return results


def _seen(lab: LabState, workloads: list[Workload]) -> dict[str, set[int]]:
    """Receiver -> identities that its own node saw arrive."""
    dump = ("meshnet", "map", "dump", "seen_identities", "-o", "json")
    rows = run_all(lab, {workload.node: dump for workload in workloads})
    return {
        workload.name: {
            row["identity"]
            for row in json.loads(rows[workload.node])
            if row["endpoint_id"] == workload.id
        }
        for workload in workloads
    }


def _spoken(
    reached: dict[tuple[str, str], tuple[Reached, Reached]], source: Workload, target: Workload
) -> str:
    pair = reached[source.name, target.name]
    words = [f"{r.rtt_ms:.2f}" if r.rtt_ms is not None else "!" for r in pair]
    return " / ".join(words) + ("" if all(r.tcp for r in pair) else " !tcp")


def _identity(seen: dict[str, set[int]], source: Workload, target: Workload) -> str:
    number = source.identity
    return f"{number >> 16}:{number & 0xFFFF}" if number in seen[target.name] else "!"


def _print_matrix(workloads: list[Workload], cell: Any) -> None:
    """Rows send, columns receive."""
    header = ["FROM \\ TO", *(f"{w.cluster}/{w.name}" for w in workloads)]
    rows = [
        [
            f"{source.cluster}/{source.name}",
            *("-" if target == source else cell(source, target) for target in workloads),
        ]
        for source in workloads
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "up"))
    except MeshnetError as error:
        _say(f"Error: {error}")
        sys.exit(error.exit_code)
