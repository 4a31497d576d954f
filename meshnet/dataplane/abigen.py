"""From the C headers to Python and to the reference pages, by clang and BTF.

`bpf/include/abi/*.h` is the only truth about layouts. This reads it back as the compiler
laid it out and writes `abi.py`, docs/reference/abi.md and docs/reference/drop-reasons.md.

    python -m meshnet.dataplane.abigen            write them
    python -m meshnet.dataplane.abigen --check    fail when one differs from the headers

Needs clang and bpftool; only developers and CI run it, what it writes is committed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs

from meshnet.errors import LayoutDrift

ROOT = Path(__file__).resolve().parents[2]
HEADERS = ROOT / "bpf" / "include" / "abi"

_CTYPES = {1: "c_uint8", 2: "c_uint16", 4: "c_uint32", 8: "c_uint64"}
_MADE_BY = "Generated from bpf/include/abi by `python -m meshnet.dataplane.abigen`: do not edit."


@attrs.frozen
class Field:
    name: str
    offset: int
    size: int
    base: str
    """`u8` to `u64`, or the name of another struct."""
    count: int | None
    """Elements of an array."""


@attrs.frozen
class Struct:
    name: str
    size: int
    fields: tuple[Field, ...]


@attrs.frozen
class Enum:
    name: str
    values: tuple[tuple[str, int], ...]
    """Names without the word that all of them begin with."""


def _python_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


class Btf:
    """The types of one object file, as `bpftool btf dump` tells them."""

    def __init__(self, types: list[dict[str, Any]]) -> None:
        self._types = {entry["id"]: entry for entry in types}

    def _named(self, kind: str, name: str) -> dict[str, Any]:
        for entry in self._types.values():
            if (entry["kind"], entry["name"]) == (kind, name):
                return entry
        raise LayoutDrift(f"{kind.lower()} {name} is in the headers, but not in their BTF")

    def _resolve(self, number: int) -> dict[str, Any]:
        entry = self._types[number]
        while entry["kind"] in ("TYPEDEF", "CONST", "VOLATILE"):
            entry = self._types[entry["type_id"]]
        return entry

    def _field(self, member: dict[str, Any]) -> Field:
        entry, count = self._resolve(member["type_id"]), None
        if entry["kind"] == "ARRAY":
            count = entry["nr_elems"]
            entry = self._resolve(entry["type_id"])
        base = entry["name"] if entry["kind"] == "STRUCT" else f"u{entry['size'] * 8}"
        size = entry["size"] * (count or 1)
        return Field(member["name"], member["bits_offset"] // 8, size, base, count)

    def struct(self, name: str) -> Struct:
        entry = self._named("STRUCT", name)
        return Struct(name, entry["size"], tuple(map(self._field, entry["members"])))

    def enum(self, name: str) -> Enum:
        values = [(value["name"], value["val"]) for value in self._named("ENUM", name)["values"]]
        words = {value.split("_")[0] for value, _ in values}
        cut = len(next(iter(words))) + 1 if len(words) == 1 else 0
        return Enum(name, tuple((value[cut:], number) for value, number in values))


def read_headers() -> dict[str, str]:
    """Name -> text of every header."""
    return {path.name: path.read_text() for path in sorted(HEADERS.glob("*.h"))}


def declared(headers: dict[str, str], kind: str) -> list[str]:
    """Names of all structs or enums, those that others are made of first."""
    texts = (headers["address.h"], *(t for name, t in headers.items() if name != "address.h"))
    return [name for text in texts for name in re.findall(rf"^{kind} (\w+) {{", text, re.M)]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LayoutDrift(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def read_layout(headers: dict[str, str]) -> Btf:
    """Compile the headers, with one variable of each type so that none is left out."""
    lines = [f'#include "{name}"' for name in headers]
    for kind in ("struct", "enum"):
        lines += [f"{kind} {name} {kind}_{name};" for name in declared(headers, kind)]
    with tempfile.TemporaryDirectory() as directory:
        source, made = Path(directory, "abi.c"), Path(directory, "abi.o")
        source.write_text("\n".join(lines) + "\n")
        include = f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH')}"
        _run("clang", "-target", "bpf", "-g", f"-I{HEADERS}", include, "-c", str(source),
             "-o", str(made))  # fmt: skip
        dump: list[dict[str, Any]] = json.loads(
            _run("bpftool", "-j", "btf", "dump", "file", str(made))
        )["types"]
    return Btf(dump)


def drop_texts(headers: dict[str, str]) -> list[tuple[str, int, str]]:
    """(name without DROP_, number, description) in the header's order."""
    found = re.findall(r"^\tDROP_(\w+) = (\d+), /\* (.+) \*/$", headers["drop.h"], re.M)
    return [(name, int(number), text) for name, number, text in found]


def _ctypes_name(field: Field) -> str:
    base = (
        f"ctypes.{_CTYPES[int(field.base[1:]) // 8]}"
        if re.fullmatch(r"u\d+", field.base)
        else _python_name(field.base)
    )
    return base if field.count is None else f"{base} * {field.count}"


def _annotation(field: Field) -> str:
    scalar = re.fullmatch(r"u\d+", field.base)
    if field.count is None:
        return "int" if scalar else _python_name(field.base)
    base = f"ctypes.{_CTYPES[int(field.base[1:]) // 8]}" if scalar else _python_name(field.base)
    return f"ctypes.Array[{base}]"


def render_python(headers: dict[str, str], btf: Btf) -> str:
    """The text of abi.py."""
    lines = [f'"""{_MADE_BY}"""', "", "from __future__ import annotations", ""]
    lines += ["import ctypes", "import enum", ""]
    digest = sha256("".join(headers.values()).encode()).hexdigest()
    lines += [f'HEADERS_SHA256 = "{digest}"', ""]
    for name in declared(headers, "enum"):
        described = btf.enum(name)
        lines += ["", f"class {_python_name(name)}(enum.IntEnum):"]
        lines += [f"    {value} = {number}" for value, number in described.values] + [""]
    for name in declared(headers, "struct"):
        struct = btf.struct(name)
        lines += ["", f"class {_python_name(name)}(ctypes.Structure):"]
        lines += [f"    {field.name}: {_annotation(field)}" for field in struct.fields]
        lines += ["    _fields_ = ["]
        lines += [f'        ("{field.name}", {_ctypes_name(field)}),' for field in struct.fields]
        lines += ["    ]", ""]
    lines += ["", "SIZES: dict[type[ctypes.Structure], int] = {"]
    for name in declared(headers, "struct"):
        lines += [f"    {_python_name(name)}: {btf.struct(name).size},"]
    lines += ["}", "", "DROP_TEXTS: dict[DropReason, str] = {"]
    lines += [f"    DropReason.{name}: {text!r}," for name, _, text in drop_texts(headers)]
    return "\n".join([*lines, "}", ""])


def render_drop_reasons(headers: dict[str, str]) -> str:
    """The text of docs/reference/drop-reasons.md."""
    lines = ["# Drop reasons", "", f"<!-- {_MADE_BY} -->", ""]
    lines += ["Every refused packet is counted under one of these (`meshnet drops`), by direction:"]
    lines += [
        "`egress` on its way from an endpoint, `ingress` on its way to one. A sample of them,"
    ]
    lines += [
        "at most 100 a second, reason and CPU, comes as an event that names file and line.",
        "",
    ]
    lines += ["| number | reason | the packet |", "|---|---|---|"]
    lines += [f"| {number} | `{name}` | {text} |" for name, number, text in drop_texts(headers)[1:]]
    return "\n".join([*lines, ""])


def render_abi(headers: dict[str, str], btf: Btf) -> str:
    """The text of docs/reference/abi.md."""
    lines = ["# Layout of the dataplane's maps", "", f"<!-- {_MADE_BY} -->", ""]
    lines += ["Numbers are in host byte order; an address is 16 bytes as on the wire, IPv4 as"]
    lines += ["`::ffff:a.b.c.d`. Which map has which: `meshnet/dataplane/schema.py`.", ""]
    for name in declared(headers, "struct"):
        struct = btf.struct(name)
        lines += [f"## struct {name} ({struct.size} bytes)", ""]
        lines += ["| offset | size | field | type |", "|---|---|---|---|"]
        for field in struct.fields:
            kind = field.base if field.count is None else f"{field.base}[{field.count}]"
            lines += [f"| {field.offset} | {field.size} | `{field.name}` | {kind} |"]
        lines += [""]
    return "\n".join(lines)


def outputs() -> Iterator[tuple[Path, str]]:
    """Every generated file with the text it should have."""
    headers = read_headers()
    btf = read_layout(headers)
    yield Path(__file__).with_name("abi.py"), render_python(headers, btf)
    yield ROOT / "docs" / "reference" / "abi.md", render_abi(headers, btf)
    yield ROOT / "docs" / "reference" / "drop-reasons.md", render_drop_reasons(headers)


def main(arguments: list[str]) -> int:
    stale = [
        (path, text) for path, text in outputs() if not path.exists() or path.read_text() != text
    ]
    for path, text in stale:
        if "--check" in arguments:
            print(f"{path.relative_to(ROOT)} is stale: run `python -m meshnet.dataplane.abigen`")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
