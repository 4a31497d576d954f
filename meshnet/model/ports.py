"""Sets of ports as the kernel writes them: `4244,40000-60999`."""

from __future__ import annotations

import re

from meshnet.errors import ConfigError

Ports = tuple[tuple[int, int], ...]
"""First and last port of each range, apart and in order: 20 000 numbers would cost 2 MB."""

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
FEWEST = 256
"""A pool for masquerading has at least so many: flows to one server share it."""


def parse_ports(text: str) -> Ports:
    """As in `net.ipv4.ip_local_reserved_ports`. Raises ConfigError."""
    found = []
    for part in filter(None, text.strip().split(",")):
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= first <= last <= 65535:
            raise ConfigError(f"{part.strip()!r} is neither a port nor FIRST-LAST, up to 65535")
        found.append((first, last))
    return union(tuple(found), ())


def format_ports(ports: Ports) -> str:
    """The shortest text that `parse_ports` reads back."""
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ports)


def union(one: Ports, other: Ports) -> Ports:
    """Neighbours become one range."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted((*one, *other)):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def minus(one: Ports, other: Ports) -> Ports:
    """What is left of the first."""
    left = list(one)
    for a, b in other:
        left = [
            part
            for first, last in left
            for part in ((first, min(last, a - 1)), (max(first, b + 1), last))
            if part[0] <= part[1]
        ]
    return tuple(left)


def parse_pool(text: str) -> tuple[int, int]:
    """One range for masquerading, such as `40000-60999`.

    Raises:
        ConfigError: it is no range, reaches below 1024, or is too small.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None or match[2] is None:
        raise ConfigError(f"masquerade_ports {text!r} is not FIRST-LAST, such as 40000-60999")
    first, last = int(match[1]), int(match[2])
    if not 1024 <= first <= last <= 65535:
        raise ConfigError(f"masquerade_ports {text} must lie within 1024-65535, the lower first")
    if last - first + 1 < FEWEST:
        raise ConfigError(
            f"masquerade_ports {text} are {last - first + 1} ports: {FEWEST} at least, since all "
            "flows to one server share them"
        )
    return first, last
