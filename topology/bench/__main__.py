"""`make bench`: ratios against the kernel's own dataplane, what a packet costs, and services.

python -m topology.bench [--pairs N] [--ms N] [--only packets|services]

Needs a quiet machine with two CPUs. Writes build/bench.json and prints the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import attrs

from meshnet.dataplane.programs import counting_run_time
from meshnet.errors import MeshnetError, NotFound
from topology import labs
from topology.bench import ratio, services, sides
from topology.bench.ratio import Result
from topology.bench.sides import Side
from topology.inside import run
from topology.model import RuntimeKind

FILE = sides.SOURCE.with_name("bench.clab.yml")
REPORT = sides.BUILD.parent / "bench.json"
COLD_FLOWS = 100_000
BAR = 1.0
SHORTER = 4
"""Services have many alternatives: each run of theirs is so much shorter."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure meshnet against the kernel's vxlan.")
    parser.add_argument("--pairs", type=int, default=20, help="of runs, of each kind")
    parser.add_argument("--ms", type=int, default=1000, help="of load, a run")
    parser.add_argument("--only", choices=("packets", "services"), help="that part alone")
    wanted = parser.parse_args()
    program = sides.build_load()
    results: list[Result] = []
    if wanted.only != "services":
        results += packets(program, wanted.pairs, wanted.ms)
    if wanted.only != "packets":
        results += services.measure(program, wanted.pairs, wanted.ms // SHORTER, _say)
    REPORT.write_text(json.dumps([attrs.asdict(row) for row in results], indent=2) + "\n")
    for row in results:
        print(_line(row))
    return 0


def packets(program: Path, pairs: int, milliseconds: int) -> list[Result]:
    """Two meshes of two hosts, ours and the kernel's."""
    _take_down()
    lab = labs.up(FILE, RuntimeKind.NETNS, _say, _say)
    try:
        ours, peer = sides.mesh(lab, program, _say), sides.plain(lab, program)
        return measure(ours, peer, pairs, milliseconds)
    finally:
        _take_down()


def measure(ours: Side, peer: Side, pairs: int, milliseconds: int) -> list[Result]:
    setting = "veth wire, 1500 bytes, IPv4 over IPv4, one flow, sender CPU 0, receiver CPU 1"
    _say(f"TCP stream, {pairs} pairs")
    streams = list(
        ratio.interleaved(
            lambda: ours.stream(milliseconds), lambda: peer.stream(milliseconds), pairs
        )
    )
    _say(f"TCP round trips, {pairs} pairs")
    trips = list(
        ratio.interleaved(
            lambda: ours.round_trips(milliseconds), lambda: peer.round_trips(milliseconds), pairs
        )
    )
    return [
        ratio.compare("TCP stream, overlay", "Gbit/s", setting, streams, scale=8e-9),
        ratio.compare("TCP round trips, overlay", "1/s", setting, trips),
        run_time(ours, "one flow", 1, milliseconds),
        run_time(ours, f"{COLD_FLOWS} random flows", COLD_FLOWS, milliseconds),
    ]


def run_time(ours: Side, setting: str, flows: int, milliseconds: int) -> Result:
    """ns a packet in from_endpoint and the stages behind it, encapsulation too."""
    _say(f"run time of from_endpoint, {setting}")
    ours.load("flood", str(milliseconds), str(flows))  # rows are made, caches are as they will be
    statistics = counting_run_time()
    try:
        before = _statistics(ours)
        ours.load("flood", str(milliseconds), str(flows))
        after = _statistics(ours)
    finally:
        os.close(statistics)
    packets = after[1] - before[1]
    return Result(
        name="run time of from_endpoint, overlay",
        unit="ns",
        ours=(after[0] - before[0]) / packets,
        peer=None,
        ratio=None,
        low=None,
        high=None,
        runs=packets,
        setting=f"UDP of 32 bytes, {setting}",
    )


def _statistics(ours: Side) -> tuple[int, int]:
    """(ns, runs) of the program, as the kernel has counted."""
    show = "bpftool -j prog show pinned /sys/fs/bpf/meshnet/gen-*/from_endpoint"
    shown = json.loads(run(ours.lab, ours.node, "sh", "-c", show))
    return shown.get("run_time_ns", 0), shown.get("run_cnt", 0)


def _line(row: Result) -> str:
    measured = f"{row.name} ({row.setting}): {row.ours:.4g} {row.unit}"
    if row.ratio is None:
        return f"{measured}, of {row.runs}"
    return (
        f"{measured}, the other's {row.peer:.4g}; ratio {row.ratio:.3f}"
        f" [{row.low:.3f}, {row.high:.3f}], {row.runs} pairs: {row.verdict(_bar(row))}"
    )


def _bar(row: Result) -> float:
    return services.DIRECT_BAR if row.setting.endswith(services.DIRECT) else BAR


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _take_down() -> None:
    try:
        labs.down("bench")
    except NotFound:
        return  # it was not up


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MeshnetError as error:
        sys.exit(f"bench: {error}")
