"""An endpoint's own /etc/resolv.conf: names of its mesh first, then its node's resolvers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from meshnet.config import Paths
from meshnet.host.mount import Flag, bind, mount
from meshnet.host.namespace import Namespace, unshare
from meshnet.logic.service_names import resolv_conf

RESOLV_CONF = Path("/etc/resolv.conf")


def use_resolvers(namespace: str, resolvers: Sequence[str]) -> None:
    """Move this process to a mount namespace of its own where it asks these servers; mounts
    that the machine makes later still arrive. Without servers, or on a machine that has no
    resolv.conf to put ours over, nothing changes."""
    if not resolvers or not RESOLV_CONF.exists():
        return
    file = Paths.from_environment().run / "resolv" / f"{namespace}.conf"
    _write(file, resolv_conf(namespace, [ip_address(each) for each in resolvers]))
    unshare(Namespace.MOUNT)
    mount("none", "/", flags=Flag.SLAVE | Flag.RECURSIVE)
    bind(file, RESOLV_CONF.resolve())


def _write(file: Path, text: str) -> None:
    """Whole or not at all: others of this namespace may start at once. What has the old file
    mounted keeps it."""
    if file.exists() and file.read_text() == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(file)
