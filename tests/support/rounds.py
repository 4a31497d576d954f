"""Does a lab leave anything on the machine? Up and down many times, and killed on its way up.

python -m tests.support.rounds --rounds 50 --kills 10

What is compared before and after: the machine's links, mounts, cgroups, BPF pins, entries of
labs and named namespaces; and of what ran in the lab, its processes and its namespaces.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from tests.support.lab import MESHNET, STATE, found, inhabitants, leftovers, meshnet

SETTLE_S = 15.0
"""The kernel takes a namespace's links away after its last process, and not at once."""

LAB = """\
name: {name}
topology:
  defaults: {{kind: linux}}
  nodes:
    sw: {{kind: bridge}}
    one:
      binds: ["/etc/hostname:/srv/name:ro"]
      exec:
        - ip addr add 172.30.3.1/24 dev eth1
        - mkdir /sys/fs/bpf/pin
        - ip netns add inner
        - sh -c "setsid sleep 3600 >/dev/null 2>&1 &"
    two:
      exec: ["ip addr add 172.30.3.2/24 dev eth1", "sh -c 'mount -t tmpfs none /mnt'"]
    outside: {{kind: host}}
  links:
    - {{endpoints: ["one:eth1", "sw:one"], mtu: 1500}}
    - {{endpoints: ["two:eth1", "sw:two"], mtu: 1500}}
    - {{endpoints: ["two:eth2", "outside:{outside}"], mtu: 1500}}
"""


@attrs.frozen
class Machine:
    """What a lab could leave behind."""

    things: frozenset[str]

    @classmethod
    def now(cls) -> Machine:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found = {f"link {name}" for name in os.listdir("/sys/class/net")}
        found |= {f"mount {line.split()[4]}" for line in mounts}
        for what, root in (
            ("cgroup", "/sys/fs/cgroup"), ("pin", "/sys/fs/bpf"), ("netns", "/run/netns"),
        ):  # fmt: skip
            found |= {f"{what} {path}" for path, _, _ in os.walk(root)}
        found |= {f"lab {path}" for path in STATE.glob("*")}
        return cls(frozenset(found))

    def left_since(self, before: Machine, about: Callable[[str], bool]) -> list[str]:
        return sorted(thing for thing in self.things - before.things if about(thing))


@attrs.frozen
class Rounds:
    """One lab, over and over."""

    name: str
    file: Path
    before: Machine
    alone: bool
    """Nobody else uses the machine: whatever is new on it was left by the lab."""

    def whole(self) -> float:
        """Up and down; seconds of the way up."""
        began = time.monotonic()
        done = meshnet("lab", "up", str(self.file))
        assert done.returncode == 0, done.stderr
        took = time.monotonic() - began
        lived = inhabitants(found(self.name))
        assert meshnet("lab", "down", self.name).returncode == 0
        self.check(lived)
        return took

    def killed(self, after_s: float) -> None:
        """`up` is killed so many seconds after its start."""
        child = subprocess.Popen(
            [str(MESHNET), "lab", "up", str(self.file)], stderr=subprocess.DEVNULL
        )
        time.sleep(after_s)
        child.kill()
        child.wait()
        done = meshnet("lab", "down", self.name)
        assert done.returncode in (0, 4), done.stderr  # 4: it had not made anything yet
        self.check({})

    def check(self, lived: Mapping[int, int]) -> None:
        """Raises AssertionError that names what is left."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            left = leftovers(self.name, lived)
            left += Machine.now().left_since(self.before, self._ours)
            if not left:
                return
            assert time.monotonic() < deadline, f"left: {left}"
            time.sleep(0.05)

    def _ours(self, thing: str) -> bool:
        return self.alone or self.name in thing or outside(self.name) in thing


def outside(name: str) -> str:
    """The machine's end of the lab's cable to it."""
    return f"o{name}"[:15]


def prepare(directory: Path, *, alone: bool) -> Rounds:
    name = f"rnd-{os.getpid()}"
    file = directory / f"{name}.clab.yml"
    file.write_text(LAB.format(name=name, outside=outside(name)))
    return Rounds(name, file, Machine.now(), alone)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument(
        "--shared", action="store_true", help="others use the machine: look at the lab's own alone"
    )
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        rounds = prepare(Path(directory), alone=not words.shared)
        times = [rounds.whole() for _ in range(words.rounds)]
        print(f"{words.rounds} rounds: nothing left, the longest up took {max(times):.2f} s")
        for moment in range(words.kills):
            rounds.killed(max(times) * (moment + 0.5) / words.kills)
        print(f"{words.kills} kills of `lab up` within {max(times):.2f} s: nothing left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
