"""bpf/*.c -> bytecode, by BCC as a compiler only. Runs as a child process of its own.

    python -m meshnet.dataplane.compiler [DIRECTORY [SOURCE]]

writes the artifact for the sources into DIRECTORY (the package's own, for a wheel, when none
is given) and prints its path; one that is there already is left alone.

BCC's LLVM may end the process without an exception, changes the working directory and cannot
compile in two threads, so nobody else imports this module: `artifact.produce` starts it and
reads its standard error.

docs/design/0001-bcc-as-a-compiler.md has the reasons.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import sysconfig
from pathlib import Path

from meshnet.dataplane import artifact
from meshnet.dataplane.schema import PROGRAMS, placeholders


def _flags(source: Path) -> list[str]:
    """Beside those of the digest: where this machine keeps our and its uapi headers."""
    triplet = sysconfig.get_config_var("MULTIARCH")
    return [
        *artifact.FLAGS,
        f"-I{source / 'include'}",
        *(f"-DFD_{name}={number:#x}" for name, number in placeholders().items()),
        *("-idirafter", f"/usr/include/{triplet}", "-idirafter", "/usr/include"),
    ]


def _with_line_numbers(path: Path) -> str:
    """Say again after each function's brace where we are, since drop events name file and line:
    BCC calls the file /virtual/main.c and puts an attribute's line before every function."""
    lines = [f'#line 1 "{path.name}"']
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        lines.append(line)
        if line == "{":
            lines.append(f'#line {number + 1} "{path.name}"')
    return "\n".join([*lines, ""])


def _compile(source: Path, program: str) -> bytes:
    """The instructions of <program>.c. BCC prints its complaints on standard error."""
    import bcc
    from bcc.libbcc import lib

    text = _with_line_numbers(source / f"{program}.c")
    module = bcc.BPF(text=text, cflags=_flags(source))
    name = program.encode()
    size = lib.bpf_function_size(module.module, name)
    start = lib.bpf_function_start(module.module, name)
    if not size:
        raise SystemExit(f"error: {program}.c has no function {program}")
    return ctypes.string_at(start, size)


def _versions() -> dict[str, str]:
    """Who compiled it: BCC, and the LLVM that its library is linked to."""
    import bcc

    llvm = re.search(r"libLLVM-([\w.]+?)\.so", Path("/proc/self/maps").read_text())
    return {"bcc": bcc.__version__, "llvm": llvm.group(1) if llvm else "static"}


def main(directory: Path, source: Path) -> None:
    digest = artifact.source_digest(source)
    if digest is None:
        raise SystemExit(f"error: there are no sources in {source}")
    wanted = directory / artifact.file_name(digest)
    if not wanted.exists():
        os.environ["BCC_KERNEL_SOURCE"] = str(source / "stub")
        programs = {}
        for program in PROGRAMS:
            print(f"compiling {program}.c", file=sys.stderr, flush=True)
            programs[program] = _compile(source, program)
        artifact.write(wanted, artifact.Artifact(digest, programs, _versions()))
    if directory == artifact.SHIPPED:
        for older in set(directory.glob("*.json")) - {wanted}:
            older.unlink()  # a wheel carries one
    print(wanted)


if __name__ == "__main__":
    given = [Path(argument).resolve() for argument in sys.argv[1:]]
    main(*given, *(artifact.SHIPPED, artifact.SOURCE)[len(given) :])
