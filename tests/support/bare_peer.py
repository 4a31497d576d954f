"""One real node, and beside it a host without meshnet that speaks the tunnel's protocol.

10.1.0.10      ┌──────┐  192.0.2.1        192.0.2.2  ┌──────┐
fd00:10:1::10 ─┤ east ├══════════════════════════════┤ west │  a peer by its rows alone
               └──────┘  2001:db8::1    2001:db8::2  └──────┘
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import attrs

from meshnet.dataplane.kernel import KernelDataplane
from meshnet.model.dataplane import Mode
from tests.support import two_nodes
from tests.support.bpf import bpf_file_system, run
from tests.support.two_nodes import Host, inside

_runs = count()


@attrs.frozen
class Beside:
    east: Host
    west: Host
    """Its namespace has the underlay's interface and addresses, and nothing else."""
    dataplane: KernelDataplane

    def send_by(self, mode: Mode, *, underlay: int = 4) -> None:
        hosts = [self.east, self.west]
        two_nodes.fill(self.dataplane, self.east, hosts, underlay=underlay, mode=mode)

    def seen(self) -> set[int]:
        """Identities that the endpoint has had packets from."""
        return {row["identity"] for row in self.dataplane.seen_identities()}

    def drops(self) -> list[str]:
        return [f"{drop.reason} {drop.direction}" for drop in self.dataplane.drops()]


@contextlib.contextmanager
def bare_peer(directory: Path) -> Iterator[Beside]:
    """Both up; no namespace, mount or pin is left afterwards."""
    unique = f"peer{os.getpid()}-{next(_runs)}"
    east = Host(f"{unique}-east", 1, directory / "east")
    west = Host(f"{unique}-west", 2, directory / "west")
    namespaces = (east.name, east.endpoint, west.name)
    dataplane: KernelDataplane | None = None
    with bpf_file_system(directory):
        try:
            for name in namespaces:
                run(f"ip netns add {name}")
            two_nodes._wire(east, west)
            two_nodes._links(east)
            for words in (
                "link set lo up",
                "link set underlay up",
                "addr add 192.0.2.2/24 dev underlay",
                "addr add 2001:db8::2/64 dev underlay nodad",
            ):
                run(f"ip -n {west.name} {words}")
            dataplane = east.dataplane()
            with inside(east.name):
                dataplane.attach_endpoint(east.row())
            yield Beside(east, west, dataplane)
        finally:
            if dataplane is not None:
                dataplane.unload()
                dataplane.close()
            for name in namespaces:
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
