"""What the command line prints: data on stdout, progress and warnings on stderr.

Tables are for people: upper-case headers, columns aligned, no borders, nothing cut off.
JSON is the agent's own objects, unchanged, so that what scripts read is the API's contract.
Colour only on a terminal, never with `NO_COLOR` (no-color.org) or `TERM=dumb`.
"""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

import attrs

Row = Mapping[str, Any]

GAP = "   "


class Output(enum.StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def for_people(self) -> bool:
        return self in (Output.TABLE, Output.WIDE)


class Tone(enum.StrEnum):
    """ANSI colours, by meaning."""

    GOOD = "32"
    WARN = "33"
    BAD = "31"
    DIM = "2"


@attrs.frozen
class Column:
    header: str
    value: Callable[[Row], object]
    wide: bool = False
    """Shown by `-o wide` only."""
    tone: Callable[[Row], Tone | None] = lambda _row: None

    @property
    def label(self) -> str:
        """The header as a word of running text."""
        return _PROPER.get(self.header, self.header.capitalize())


_PROPER = {"ID": "ID", "IPV4": "IPv4", "IPV6": "IPv6", "PODCIDRS": "PodCIDRs"}


def show(rows: Iterable[Row], columns: Sequence[Column], output: Output) -> None:
    """Print a list. An empty one is a header alone, or `[]`."""
    rows = list(rows)
    if not output.for_people:
        show_data(rows, output)
        return
    shown = [column for column in columns if output is Output.WIDE or not column.wide]
    print_table(
        [column.header for column in shown],
        [[(text(column.value(row)), column.tone(row)) for column in shown] for row in rows],
    )


def show_one(row: Row, columns: Sequence[Column], output: Output) -> None:
    """Print one object: a line a field for people, else the object itself."""
    if not output.for_people:
        show_data(row, output)
        return
    print_fields((column.label, text(column.value(row))) for column in columns)


def show_data(data: object, output: Output) -> None:
    if output is Output.YAML:
        import yaml  # 25 ms that only this output pays

        sys.stdout.write(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    else:
        sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def print_table(headers: Sequence[str], rows: Sequence[Sequence[tuple[str, Tone | None]]]) -> None:
    widths = [
        max(len(header), *(len(row[index][0]) for row in rows)) if rows else len(header)
        for index, header in enumerate(headers)
    ]
    _write_line(zip(headers, widths, [None] * len(headers), strict=True))
    for row in rows:
        texts, tones = zip(*row, strict=True)
        _write_line(zip(texts, widths, tones, strict=True))


def _write_line(cells: Iterable[tuple[str, int, Tone | None]]) -> None:
    line = list(cells)
    last = len(line) - 1
    sys.stdout.write(
        GAP.join(
            # padded before it is painted: escape codes have no width
            painted(cell if index == last else cell.ljust(width), tone)
            for index, (cell, width, tone) in enumerate(line)
        )
        + "\n"
    )


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """`Name      value`, a line each."""
    fields = list(fields)
    width = max((len(name) for name, _ in fields), default=0)
    for name, value in fields:
        sys.stdout.write(f"{name.ljust(width)}{GAP}{value}\n")


def text(value: object) -> str:
    """A cell: `-` for nothing, `yes`/`no`, lists and mappings joined by commas."""
    match value:
        case None | "" | [] | ():
            return "-"
        case bool():
            return "yes" if value else "no"
        case Mapping():
            pairs = (f"{key}={value[key]}" if value[key] != "" else key for key in sorted(value))
            return ",".join(pairs) or "-"
        case list() | tuple():
            return ",".join(text(item) for item in value)
        case _:
            return str(value)


def has_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(words: str, tone: Tone | None, stream: TextIO | None = None) -> str:
    """`words` in a tone where `stream` (stdout by default) shows colours."""
    if tone is None or not has_colour(stream or sys.stdout):
        return words
    return f"\x1b[{tone}m{words}\x1b[0m"


def progress(line: str) -> None:
    """One step of long work."""
    print(line, file=sys.stderr, flush=True)


def warn(line: str) -> None:
    print(painted("Warning:", Tone.WARN, sys.stderr), line, file=sys.stderr, flush=True)


def fail(line: str) -> None:
    print(painted("Error:", Tone.BAD, sys.stderr), line, file=sys.stderr, flush=True)
