"""The C itself: one dialect for two compilers, and layouts that both sides share."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from meshnet.dataplane.artifact import SOURCE
from meshnet.dataplane.schema import PROGRAMS, Sizes, placeholders, schema

UAPI = f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH')}"
STRICT = ["-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
HEADERS = sorted((SOURCE / "include" / "abi").glob("*.h"))
FILES = [path for path in SOURCE.rglob("*.[ch]") if "stub" not in path.parts]


def clang(text: str, *flags: str) -> str:
    done = subprocess.run(
        ["clang", "-target", "bpf", "-g", *STRICT, UAPI, *flags, "-x", "c", "-c", "-", "-o", "-"],
        input=text.encode(),
        capture_output=True,
        check=False,
    )
    return done.stderr.decode()


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_a_layout_header_compiles_alone(header: Path) -> None:
    assert clang(f'#include "{header}"\n') == ""


@pytest.mark.parametrize("program", PROGRAMS)
def test_plain_clang_accepts_every_program(program: str) -> None:
    defines = [f"-DFD_{name}={number:#x}" for name, number in placeholders().items()]
    include = ["-I", str(SOURCE / "include"), "-include", str(SOURCE / "stub" / "clang.h")]

    assert clang(f'#include "{SOURCE / program}.c"\n', *include, *defines) == ""


def test_every_program_is_a_file_and_every_file_a_program() -> None:
    assert {path.stem for path in SOURCE.glob("*.c")} == set(PROGRAMS)


def test_every_map_is_described_where_c_readers_look() -> None:
    text = (SOURCE / "include" / "maps.h").read_text()

    assert re.findall(r"^ \* (\w+) .* (?:agent|programs) ", text, re.M) == [
        spec.name for spec in schema(Sizes())
    ]


def test_generated_files_are_those_of_the_headers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "meshnet.dataplane.abigen", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_layouts_have_no_bit_fields_and_are_not_packed() -> None:
    for header in HEADERS:
        text = header.read_text()
        assert not re.search(r"^\t__\w+ \w+ ?: ?\d", text, re.M), header.name
        assert "packed" not in text, header.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_short_licensed_and_without_switches(path: Path) -> None:
    lines = path.read_text().splitlines()

    assert lines[0] == "// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause"
    assert len(lines) <= (250 if path.suffix == ".h" else 300)
    assert sum(line.startswith("#if") for line in lines) <= len(lines) / 100 + 1
    assert max(len(line.expandtabs(8)) for line in lines) <= 100
