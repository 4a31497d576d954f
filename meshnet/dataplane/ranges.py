"""Which numbers of an array are in use: runs of them, taken and given back.

Next fit: what was freed last is given away last, since a program on another CPU may hold an
old number for some microseconds.
"""

from __future__ import annotations

from bisect import bisect_left, insort


class Ranges:
    """Numbers from 0 to `size` - 1."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: list[tuple[int, int]] = [(0, size)] if size else []
        """(start, length), in order, with no two that touch."""
        self._next: int = 0

    def take(self, length: int) -> int | None:
        """The start of a free run; None when no run is long enough. An empty run is 0."""
        if not length:
            return 0
        for start, room in self._from_next():
            if room >= length:
                self.claim(start, length)
                self._next = start + length
                return start
        return None

    def _from_next(self) -> list[tuple[int, int]]:
        """Free runs, beginning after what was given last; then those before it, whole."""
        after = [
            (max(start, self._next), start + room - max(start, self._next))
            for start, room in self._free
            if start + room > self._next
        ]
        return after + [(start, room) for start, room in self._free if start < self._next]

    def claim(self, start: int, length: int) -> None:
        """Mark a run as used, which must be free. Raises ValueError when it is not."""
        if not length:
            return
        place = bisect_left(self._free, (start + 1, 0)) - 1
        if place < 0:
            raise ValueError(f"{start}+{length} is not free")
        begin, room = self._free[place]
        if start + length > begin + room:
            raise ValueError(f"{start}+{length} is not free")
        left = [(begin, start - begin)] if start > begin else []
        end = begin + room - (start + length)
        right = [(start + length, end)] if end else []
        self._free[place : place + 1] = left + right

    def free(self, start: int, length: int) -> None:
        """Give a run back, joined with its neighbours."""
        if not length:
            return
        insort(self._free, (start, length))
        place = bisect_left(self._free, (start, length))
        if place + 1 < len(self._free) and start + length == self._free[place + 1][0]:
            self._free[place] = (start, length + self._free[place + 1][1])
            del self._free[place + 1]
        if place and sum(self._free[place - 1]) == start:
            self._free[place - 1] = (
                self._free[place - 1][0],
                self._free[place - 1][1] + self._free[place][1],
            )
            del self._free[place]
