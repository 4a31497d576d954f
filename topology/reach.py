"""Trying addresses from inside an endpoint: ping and TCP, all at the same time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import attrs


@attrs.frozen(kw_only=True)
class Reached:
    """One address, tried from an endpoint."""

    rtt_ms: float | None = None
    """Of ping; None: no answer."""
    tcp: bool = False

    @property
    def whole(self) -> bool:
        return self.rtt_ms is not None and self.tcp

    @property
    def not_at_all(self) -> bool:
        return self.rtt_ms is None and not self.tcp


def script(addresses: Iterable[str], port: int, *, pings: int = 3) -> str:
    """Prints a line an address: itself, ping's summary, curl's connect status."""
    tries = []
    for address in addresses:
        url = f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
        ping = f"ping -q -c {pings} -i 0.1 -W 1 {address} | tail -1"
        tcp = f"curl -gs -o /dev/null --max-time 2 {url} && echo tcp"
        tries.append(f'{{ p=$({ping}); t=$({tcp}); echo "{address} $p $t"; }} &')
    return "\n".join([*tries, "wait"])


def read(output: str) -> Mapping[str, Reached]:
    """By address."""
    lines = dict(line.split(" ", 1) for line in output.splitlines() if " " in line)
    return {address: _reached(line) for address, line in lines.items()}


def _reached(line: str) -> Reached:
    match = re.search(r"= [\d.]+/([\d.]+)/", line)
    return Reached(rtt_ms=float(match[1]) if match else None, tcp=line.endswith("tcp"))
