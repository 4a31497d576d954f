"""The machine's nft, tc, ip and ethtool, run in a lab host's network."""

from __future__ import annotations

import subprocess

from meshnet.errors import CapabilityMissing, LabError
from meshnet.host.namespace import Namespace, enter_process

PACKAGES = {"nft": "nftables", "tc": "iproute2", "ip": "iproute2", "ethtool": "ethtool"}


def run(pid: int, *argv: str, stdin: str = "") -> str:
    """Its stdout.

    Args:
        pid: of the init of the host.

    Raises:
        CapabilityMissing: the tool is not installed.
        LabError: it failed, mostly since the kernel lacks what it asks for.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            preexec_fn=lambda: enter_process(pid, Namespace.NET),
        )
    except FileNotFoundError as error:
        raise CapabilityMissing(
            f"{argv[0]} is not installed: `apt install {PACKAGES[argv[0]]}`"
        ) from error
    if done.returncode:
        reason = next(iter(done.stderr.strip().splitlines()), "no reason given")
        raise LabError(
            f"{argv[0]} refused the fault: {reason}; it needs NF_TABLES_NETDEV, "
            "NETFILTER_EGRESS and NET_SCH_HTB in the kernel"
        )
    return done.stdout
