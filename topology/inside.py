"""Commands in lab hosts, several at once, without a shell or an interpreter between.

`meshnet lab exec` is for people; this is for programs that deploy, form and measure labs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence

import attrs

from meshnet.errors import LabError
from topology.netns import runtime
from topology.state import LabState

TIMEOUT_S = 90.0


@attrs.frozen
class Started:
    """A command that runs in a host."""

    node: str
    argv: tuple[str, ...]
    process: subprocess.Popen[str]

    def output(self) -> str:
        """Its stdout, when it has ended. Raises LabError: it failed, with its last words."""
        try:
            out, err = self.process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            raise LabError(f"{self.node}: `{' '.join(self.argv)}` hangs") from error
        if self.process.returncode:
            words = (err.strip() or out.strip()).splitlines() or ["no word"]
            raise LabError(
                f"{self.node}: `{' '.join(self.argv[:4])}` ended with "
                f"{self.process.returncode}: {words[-1]}"
            )
        return out


def start(lab: LabState, node: str, argv: Sequence[str]) -> Started:
    """Begin a command in a host and do not wait for it."""
    with runtime.entrance(lab, node) as enter:
        process = subprocess.Popen(
            ("/usr/bin/env", *argv),  # which looks along the host's PATH, not along ours
            preexec_fn=enter,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    return Started(node, tuple(argv), process)


def run(lab: LabState, node: str, *argv: str) -> str:
    """One command, its stdout. Raises LabError."""
    return start(lab, node, argv).output()


def run_all(lab: LabState, commands: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """One command on each of several hosts, at the same time; stdout by host."""
    started = [start(lab, node, tuple(argv)) for node, argv in commands.items()]
    return {command.node: command.output() for command in started}
