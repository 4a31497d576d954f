"""How large a packet reaches a peer: which sizes to try next, and what the answers mean.

Pure: whoever sends the probes (`agent.path_probe`) has the sockets and the clock. A path
that carries a size carries every smaller one, so each round asks several sizes at once and
goes on between the largest answered and the smallest unanswered one, to the byte. Four
rounds do for 9000 bytes, two or three for 1500. After RFC 8899, which searches one size at a time.

All sizes are of outer IP packets: what the underlay sees.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import attrs

from meshnet.model.dataplane import Mode

FLOOR = 1280
"""Every path carries it: IPv6 demands so (RFC 8200), and less would leave IPv6 no room."""
FAN = 16
"""Sizes in one round; one round is at most this many packets a peer, three times over."""
USUAL = (1500, 1492, 1480, 1450, 1420, 1400, 1360)
"""Ethernet, PPPoE, IP in IP, VXLAN, WireGuard, clouds, IPsec: tried first."""

TUNNEL_HEADERS = 8 + 8 + 14
"""Bytes of UDP, VXLAN or Geneve without options, inner Ethernet."""


@attrs.frozen(kw_only=True)
class PathSearch:
    """Between what was answered and what was not."""

    ceiling: int
    """The largest there can be: the interface's."""
    carried: int = 0
    """Largest answered; 0: none yet."""
    refused: int = attrs.field()
    """Smallest unanswered above that; one more than the ceiling: none."""

    @refused.default
    def _nothing_refused(self) -> int:
        return self.ceiling + 1

    @property
    def found(self) -> int | None:
        """The answer, once it is known to the byte."""
        return self.carried if self.carried and self.refused == self.carried + 1 else None

    def sizes(self, hints: Iterable[int] = ()) -> tuple[int, ...]:
        """What to ask now, ascending; never nothing before `found`.

        Args:
            hints: likely answers: the last one, what an ICMP message said.
        """
        if not self.carried:
            likely = {FLOOR, *USUAL, *hints, self.ceiling}
            fitting = {size for size in likely if FLOOR <= size <= self.ceiling}
            return tuple(sorted(fitting or {self.ceiling}))
        gap = self.refused - self.carried - 1
        steps = min(gap, FAN)
        return tuple(sorted({self.carried + gap * step // steps for step in range(1, steps + 1)}))

    def narrow(self, asked: Iterable[int], answered: Collection[int]) -> PathSearch:
        """After a round. An answer beats silence: a lost probe is no proof."""
        carried = max((self.carried, *answered))
        silent = [size for size in asked if size > carried]
        refused = min((self.refused, *silent)) if self.refused > carried else self.ceiling + 1
        return attrs.evolve(self, carried=carried, refused=refused)


def verification(known: int, ceiling: int) -> tuple[int, ...]:
    """What shows whether a path is still as it was: it, one byte more, and all of it."""
    return tuple(sorted({known, min(known + 1, ceiling), ceiling}))


def overhead(version: int, mode: Mode) -> int:
    """Bytes around an endpoint's packet, by the underlay's IP version."""
    if mode is Mode.NATIVE:
        return 0
    return (20 if version == 4 else 40) + TUNNEL_HEADERS
