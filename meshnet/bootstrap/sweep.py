"""What is left of meshnet on this host, taken away without asking the agent or etcd.

For a node that leaves, and for an init or a join that failed half-way. Everything here may
be repeated, and what is absent is not an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Set
from pathlib import Path

from meshnet.bootstrap import port_pool
from meshnet.config import Paths
from meshnet.host.cgroup import Cgroup, find_hierarchy
from meshnet.model.kernel import (
    ENDPOINT_CGROUP,
    ENDPOINT_IFNAME_PREFIX,
    GENEVE_IFNAME,
    NETNS_PREFIX,
    VXLAN_IFNAME,
)
from meshnet.netlink.api import Netlink
from meshnet.pki.certificate import Profile
from meshnet.pki.store import PkiStore

NETNS = Path("/run/netns")


async def sweep_kernel(paths: Paths, netlink: Netlink) -> None:
    """Pins, and with them every program and hook; then our links, and with them their
    routes and the ports we reserved; then the network namespaces and the cgroup that we made."""
    # from the leaves up: a directory of bpffs is removed when it is empty
    shutil.rmtree(paths.bpf, ignore_errors=True)
    for ifname in await netlink.list_veths(ENDPOINT_IFNAME_PREFIX):
        if ifname.removeprefix(ENDPOINT_IFNAME_PREFIX).isdecimal():
            await netlink.delete_link(ifname)
    for ifname in (VXLAN_IFNAME, GENEVE_IFNAME):
        await netlink.delete_link(ifname)
    for route in await netlink.list_routes():
        await netlink.delete_route(route)
    await port_pool.give_back(paths, netlink)
    for name in await asyncio.to_thread(_our_namespaces):
        await netlink.delete_netns(name)
    await asyncio.to_thread(_remove_cgroup)


def _remove_cgroup() -> None:
    hierarchy = find_hierarchy()
    if hierarchy is not None:
        with contextlib.suppress(OSError):  # a command that nobody ended is still in it
            Cgroup(hierarchy).child(ENDPOINT_CGROUP).remove()


def _our_namespaces() -> list[str]:
    return [path.name for path in NETNS.glob(f"{NETNS_PREFIX}*")]


def sweep_files(paths: Paths, *, keep_keys: bool = False) -> None:
    """Settings, certificates, state and sockets. The log stays: it says what happened.

    Args:
        keep_keys: not the node's own private keys, which say who has used a token up: with
            them a join that failed half-way may be tried again with the same one.
    """
    paths.config.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # an operator's own files may lie beside it
        paths.config.parent.rmdir()
    kept = {PkiStore(paths.pki).key_path(profile) for profile in Profile} if keep_keys else set()
    for directory in (paths.state, paths.run):
        _remove(directory, kept)


def _remove(directory: Path, kept: Set[Path]) -> None:
    """The whole tree, but for some files and the directories that lead to them."""
    for entry in directory.iterdir() if directory.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            _remove(entry, kept)
        elif entry not in kept:
            entry.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: something is kept in it
        directory.rmdir()
