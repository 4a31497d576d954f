"""The ports that masquerading takes are kept from the host's own sockets, and given back.

They are added to `net.ipv4.ip_local_reserved_ports` (IPv6 obeys it too), which keeps the
kernel from choosing them for a socket that asked for none. What was in it before is noted in
the run directory, which dies with the boot as the setting does: an operator's own stay.
"""

from __future__ import annotations

import json
from pathlib import Path

from meshnet.config import Paths
from meshnet.model.ports import Ports, format_ports, minus, parse_ports, union
from meshnet.netlink.api import Netlink


def _note(paths: Paths) -> Path:
    return paths.run / "reserved-ports.json"


async def reserve(paths: Paths, netlink: Netlink, pool: tuple[int, int]) -> None:
    """Repeating it changes nothing; another pool takes the place of the last one."""
    await give_back(paths, netlink)
    before = parse_ports(await netlink.reserved_ports())
    added = minus((pool,), before)
    note = _note(paths)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"added": format_ports(added)}))
    await netlink.set_reserved_ports(format_ports(union(before, added)))


async def give_back(paths: Paths, netlink: Netlink) -> None:
    """Exactly what we added. Nothing was added: nothing is done."""
    added = _added(paths)
    if added:
        left = minus(parse_ports(await netlink.reserved_ports()), added)
        await netlink.set_reserved_ports(format_ports(left))
    _note(paths).unlink(missing_ok=True)


def _added(paths: Paths) -> Ports:
    """The note is written before the setting: after a crash in between we give back ports
    that are not in there, which changes nothing."""
    try:
        return parse_ports(json.loads(_note(paths).read_text())["added"])
    except FileNotFoundError:
        return ()
